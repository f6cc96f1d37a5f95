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
)
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


def cells(model: str) -> tuple[CellResult, ...]:
    """Seed and corrected results of one model, and one analysis that stayed open."""
    layer = SeedLayer(
        layer=0, n_prompts=9, ratio=0.0, ratio_std=0.0, embed_norm=0.9, embed_norm_std=0.1,
        attention_norm=0.0, attention_norm_std=0.0, cosine=None, cosine_std=None, agreement=0.0,
        prompts=(),
    )  # fmt: skip
    corrected = CorrectedDecomposition(
        label="corrected", positions="all tokens", documents=200, tokens=25600,
        layers=(shares(0, NULL_SHARE), shares(4, SHARE)), mean_layers=(4,),
        mean=shares(None, SHARE), caveats=("shares say where logits come from",),
    )  # fmt: skip
    seed = SeedDecomposition(label="seed", definition="d = h − e", layers=(layer,), mean_ratio=None)
    corpus = CorpusDecomposition(
        corrected=corrected, reason=None, corpus="a corpus", sampled=200, available=315,
        max_tokens=128, documents_digest="d1",
    )  # fmt: skip
    found: list[Any] = [
        (
            "decomposition",
            "done",
            None,
            PromptDecomposition(seed=seed, corrected=None, reason=None),
        ),
        ("corpus_decomposition", "done", None, corpus),
        ("context_sensitivity", "inconclusive", "no token is in two contexts", None),
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
        "measures": tuple(found), "separation": apart, "verdict": verdict,
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
