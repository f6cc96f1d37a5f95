"""A suite result made by hand, with every kind of number that a drawer must show."""

from __future__ import annotations

from typing import Any

from moetui.analyses.attention_router import (
    CorpusDecomposition,
    CorrectedDecomposition,
    LayerShares,
    PartShare,
    PromptDecomposition,
    SeedDecomposition,
    SeedLayer,
    SeedPrompt,
)
from moetui.analyses.causal_check import CausalCheck, Effect, LayerEffects, PartEffects
from moetui.analyses.context_sensitivity import (
    ContextExperts,
    ContextLayer,
    ContextSensitivity,
    Distance,
    DroppedContext,
    MinedContexts,
    WordContexts,
)
from moetui.analyses.sanity import LayerSanity, Sanity
from moetui.analyses.source_experts import ExpertShare, ExpertShares, SourceExperts
from moetui.analyses.source_heads import HeadShare, HeadShares, SourceHeads
from moetui.analyses.source_shares import RouterSourceShares, SourceShare
from moetui.analyses.token_identity import LayerIdentity, TokenIdentity
from moetui.stats import Statistic
from moetui.suites.results import (
    CellResult,
    Measure,
    ModelRecord,
    Published,
    Separation,
    SuiteResult,
    Verdict,
    Verdicts,
)
from tests.builders import make_model_info

# Text of a checkpoint or prompt that would like to be a table, a command or a picture.
HOSTILE = "a|b`c`*d*\x1b[31m<b>x</b>\n# [y](http://z)\u202e"

RATIO = Statistic(value=0.934, n_documents=9, caveat="as published: no interval, no null")
SHARE = Statistic(
    value=0.5245, ci_low=0.5171, ci_high=0.5315, n_tokens=25600, n_documents=200, n_effective=3210.4
)
DISTANCE = Statistic(
    value=0.8172, null_mean=0.8421, null_low=0.7170, null_high=0.9293, p=0.332, q=0.41,
    n_documents=4, caveat="no interval: 4 documents, 20 needed",
)  # fmt: skip
NULL_SHARE = Statistic(value=0.31, ci_low=0.29, ci_high=0.33, n_tokens=25600, n_documents=200)
APART = Statistic(value=0.2145, ci_low=0.1932, ci_high=0.2356, n_documents=200)
RATIO_NAME, SHARE_NAME = "seed ratio, mean", "attention: share of variance"


def measures(model: str, share: Statistic = SHARE) -> tuple[Measure, ...]:
    """The headline numbers of one model."""
    return (
        Measure(
            model=model, label="seed", name=RATIO_NAME, statistic=RATIO,
            units=(0.91, 0.93, 0.95, 0.94, 0.92, 0.96, 0.93, 0.94, 0.926),
        ),
        Measure(model=model, label="corrected", name=SHARE_NAME, statistic=share),
        Measure(model=model, label="corrected", name="distance", statistic=DISTANCE),
    )  # fmt: skip


def shares(layer: int | None, attention: Statistic) -> LayerShares:
    rest = Statistic(value=1 - (attention.value or 0.0))
    parts = tuple(
        PartShare(part=name, per_token=share, across_tokens=share, margin=share)
        for name, share in (("attention", attention), ("embedding", rest))
    )
    return LayerShares(
        layer=layer, parts=parts, cancellation=Statistic(value=1.2), completeness=3.1e-6,
        margin_unit="router logit", missing_tokens=0,
    )  # fmt: skip


def number(value: float) -> Statistic:
    """A statistic that is known by its value alone."""
    return Statistic(value=value, ci_low=value - 0.001, ci_high=value + 0.001, n_documents=60)


def sanity() -> Sanity:
    layer = LayerSanity(
        layer=4, ties=number(0.0021), reproduced=number(0.9987), shuffled=number(-0.0312),
        completeness=3.1e-6,
    )  # fmt: skip
    return Sanity(
        texts=4, tokens=40, same_logits=3, layers=(layer,), shuffled_definition="shuffled is 0",
        reproduced_error=None, router_bits=16, dtype="float32", completeness_bound=1e-5,
        first_layer_ratio=0.0, first_layer_experts=True, failed=("logits differ in one text",),
    )  # fmt: skip


def causal_check() -> CausalCheck:
    def effects(layer: int | None, base: float) -> LayerEffects:
        effect = Effect(
            change=number(base), excess=number(base + 0.011), length=number(base + 0.022)
        )
        other = Effect(
            change=number(base + 0.033), excess=number(base + 0.044), length=number(base + 0.055)
        )
        part = PartEffects(part="attention", mean=effect, resample=other)
        return LayerEffects(layer=layer, parts=(part,), lead=number(base + 0.066))

    return CausalCheck(
        definition="a part is replaced", layers=(effects(4, 0.3),), mean_layers=(4,),
        mean=effects(None, 0.5), directions=20, documents=60, tokens=900,
        reproduced=number(0.999), verdict="attention matters most", reason=None,
    )  # fmt: skip


def source_experts() -> SourceExperts:
    expert = ExpertShare(
        layer=3, expert=7, per_token=number(0.0789), chosen=1234,
        across_tokens=Statistic(
            value=0.0678, ci_low=0.0612, ci_high=0.0744, null_mean=0.0012, null_low=-0.0021,
            null_high=0.0045, p=0.001, q=0.002, n_documents=60,
        ),
    )  # fmt: skip
    shares = ExpertShares(
        layer=4, earlier=(0, 3), experts=(expert,), never_chosen=31, together=number(0.3456),
        completeness=2.1e-7, documents=60, tokens=3840,
    )  # fmt: skip
    return SourceExperts(
        definition="an expert's share", null="tokens exchanged", shares=shares,
        corpus="a corpus", max_tokens=64, documents_digest="d1",
    )  # fmt: skip


def source_heads() -> SourceHeads:
    def share(layer: int, head: int | None, value: float) -> HeadShare:
        across = Statistic(
            value=value, ci_low=value - 0.01, ci_high=value + 0.01, null_mean=0.0013,
            null_low=-0.0022, null_high=0.0046, p=0.001, q=0.003, n_documents=60,
        )  # fmt: skip
        return HeadShare(
            layer=layer, head=head, across_tokens=across, per_token=number(value + 0.0111)
        )

    shares = HeadShares(
        layer=4, layers=(0, 2, 4), unsplit=(0,),
        heads=(share(2, 5, 0.0871), share(0, None, 0.0541), share(4, None, 0.0131)),
        together=number(0.2222), completeness=3.3e-7, documents=60, tokens=3840,
    )  # fmt: skip
    return SourceHeads(
        definition="a head's share", null="tokens exchanged", shares=shares,
        corpus="a corpus", max_tokens=64, documents_digest="d1",
    )  # fmt: skip


def token_identity() -> TokenIdentity:
    return TokenIdentity(
        definition="η² is a share", null="ids exchanged",
        layers=(LayerIdentity(layer=4, eta2=number(0.6123)),), mean_layers=(4,),
        mean=LayerIdentity(layer=None, eta2=number(0.7123)), ids=250, min_ids=200,
        coverage=number(0.8123), documents=60, verdict="measured", reason=None,
    )  # fmt: skip


def contexts() -> ContextSensitivity:
    def distance(base: float) -> Distance:
        return Distance(
            between=number(base), shuffled=number(base + 0.011), excess=number(base + 0.022)
        )

    experts = tuple(
        ContextExperts(context=text, experts=(expert, 2), weights=(0.6, 0.4))
        for text, expert in (("111 127", 5), ("= 127", 7))
    )
    layer = ContextLayer(
        layer=4, contexts=experts, distinct_top_experts=2, sensitive=True, sets=distance(0.41),
        weights=distance(0.43),
    )  # fmt: skip
    word = WordContexts(
        word="127", token_id=3, token_text=" 127", kept=("111 127", "= 127"),
        dropped=(DroppedContext(context="abc 127", reason="another token id"),),
        verdict="measured", reason=None, layers=(layer,),
    )  # fmt: skip
    mined = MinedContexts(
        words=(word,), sets=distance(0.51), weights=distance(0.53), beaten="the shuffled one",
        verdict="measured", reason=None,
    )  # fmt: skip
    return ContextSensitivity(
        words=(word,), seed_definition="top experts differ", seed_sensitive=6, seed_cells=9,
        seed_rate=number(0.6667), set_distance=number(0.4555), weight_distance=number(0.4777),
        mined=mined, verdict="measured", reason=None,
    )  # fmt: skip


def cells(model: str) -> tuple[CellResult, ...]:
    """Seed and corrected results of one model, and one analysis that stayed open."""
    layer = SeedLayer(
        layer=0, n_prompts=9, ratio=0.0, ratio_std=0.0, embed_norm=0.9, embed_norm_std=0.1,
        attention_norm=0.0, attention_norm_std=0.0, cosine=None, cosine_std=None, agreement=0.0,
        prompts=(
            SeedPrompt(
                prompt="127 + 45 =", ratio=0.0, embed_norm=0.9123, attention_norm=0.0,
                cosine=None, embed_expert=11, attention_expert=None, agree=None,
            ),
        ),
    )  # fmt: skip
    corrected = CorrectedDecomposition(
        label="corrected", positions="all tokens", documents=200, tokens=25600,
        layers=(shares(0, NULL_SHARE), shares(4, SHARE)), mean_layers=(4,),
        mean=shares(None, SHARE), caveats=("shares say where logits come from",),
    )  # fmt: skip
    seed = SeedDecomposition(label="seed", definition="d = h − e", layers=(layer,), mean_ratio=None)
    sources = RouterSourceShares(
        layer=4,
        sources=(
            SourceShare(part="attention", layer=3, across_tokens=number(0.2345)),
            SourceShare(part="embedding", layer=None, across_tokens=number(0.1234)),
        ),
    )
    corpus = CorpusDecomposition(
        corrected=corrected, sources=(sources,), reason=None, corpus="a corpus",
        sampled=200, available=315, max_tokens=128, documents_digest="d1",
    )  # fmt: skip
    found: list[Any] = [
        (
            "decomposition",
            "done",
            None,
            PromptDecomposition(seed=seed, corrected=None, reason=None),
        ),
        ("corpus_decomposition", "done", None, corpus),
        ("sanity", "done", None, sanity()),
        ("source_experts", "done", None, source_experts()),
        ("source_heads", "done", None, source_heads()),
        ("causal_check", "done", None, causal_check()),
        ("token_identity", "done", None, token_identity()),
        ("context_sensitivity", "inconclusive", "no token is in two contexts", contexts()),
    ]
    return tuple(
        CellResult(
            model=model, analysis=name, status=status, reason=reason, seconds=1.25, result=result
        )
        for name, status, reason, result in found
    )


def make_result(model: str = "demo", *, null: bool = True, **changes: Any) -> SuiteResult:
    """A run of one model, and of its null model."""
    null_name = f"{model}, random weights"
    records = [ModelRecord(name=model, info=make_model_info(name=model), failure=None)]
    found = [*measures(model)]
    apart: tuple[Separation, ...] = ()
    if null:
        info = make_model_info(name=null_name)
        records.append(ModelRecord(name=null_name, info=info, failure=None, null_of=model))
        found += measures(null_name, NULL_SHARE)
        apart = (
            _separation(model, null_name, SHARE_NAME, SHARE, NULL_SHARE, APART, "separates", None),
            _separation(
                model, null_name, "distance", DISTANCE, DISTANCE,
                Statistic(value=0.0, caveat="no interval"), "inconclusive", "no interval",
            ),
        )  # fmt: skip
    seed, share = measures(model)[:2]
    verdict = Verdicts(
        seed=Verdict(
            label="seed rule", outcome="H1", statement="attention dominates",
            rule="above 0.85", evidence=(seed,),
        ),
        corrected=Verdict(
            label="corrected", outcome="H2", statement="attention is not alone",
            rule="its interval within 0.50 to 0.80", evidence=(share,),
        ),
        why_they_differ="the seed compares norms of parts",
    )  # fmt: skip
    fields: dict[str, Any] = {
        "schema_version": 1, "suite": "attention_router", "question": "Who decides?",
        "models": tuple(records), "parameters": {"layers": [0, 4], "prompts": ["127 + 45 ="]},
        "prompts_digest": "p1", "seed": 0, "versions": {"numpy": "2.4.6"},
        "environment": {"system": "Linux"}, "started": "2026-01-02T12:00:00+00:00",
        "finished": "2026-01-02T12:00:30+00:00", "cells": cells(model),
        "measures": tuple(found), "separation": apart, "verdicts": (verdict,), "null_verdicts": (),
        "published": (Published(model="org/real", measure=SHARE_NAME, value=0.78),),
        "caveats": ("one corpus only",),
    }  # fmt: skip
    return SuiteResult(**{**fields, **changes})


def _separation(
    model: str, null: str, name: str, trained: Statistic, of_null: Statistic,
    difference: Statistic, verdict: Any, reason: str | None,
) -> Separation:  # fmt: skip
    return Separation(
        model=model, null_model=null, label="corrected", name=name, trained=trained,
        null=of_null, difference=difference, verdict=verdict, reason=reason,
    )  # fmt: skip
