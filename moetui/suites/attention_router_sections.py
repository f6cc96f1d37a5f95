"""What `attention_router` shows of its own: the seed's tables, and the corrected readings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moetui.analyses.attention_router import (
    CorpusDecomposition,
    CorrectedDecomposition,
    LayerShares,
    PartShare,
    PromptDecomposition,
    SeedDecomposition,
)
from moetui.analyses.causal_check import CausalCheck, Effect
from moetui.analyses.source_shares import RouterSourceShares
from moetui.analyses.token_identity import TokenIdentity
from moetui.stats import Statistic
from moetui.suites import (
    attention_router_contexts,
    attention_router_experts,
    attention_router_heads,
)
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Bars, Section, Table, Value

# Of the sources of a router's logits, so many are listed: the largest.
SOURCES = 8


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """In the order in which the readings answer one another, as far as they were made."""
    return (
        *_seed(result),
        *_shares(result),
        *_sources(result),
        *attention_router_experts.sections(result),
        *attention_router_heads.sections(result),
        *_causal(result),
        *_identity(result),
        *attention_router_contexts.sections(result),
        *_prompts(result),
    )


def _names(result: SuiteResult) -> list[str]:
    return [record.name for record in result.models]


def _seed(result: SuiteResult) -> Iterator[Section]:
    found = [
        (model, prompts.seed)
        for model in _names(result)
        for prompts in results_of(result, model, PromptDecomposition)
    ]
    if found:
        yield Section(
            heading="Seed metric by layer",
            text=(
                found[0][1].definition,
                "As published: no interval and no null belong to it.",
            ),
            tables=tuple(_seed_table(model, seed) for model, seed in found),
        )


def _seed_table(model: str, seed: SeedDecomposition) -> Table:
    columns = ("layer", "prompts", "ratio", "± sd", "‖We‖", "‖Wd‖", "cosine", "same top expert")
    rows = tuple(
        (
            str(layer.layer), layer.n_prompts, layer.ratio, layer.ratio_std, layer.embed_norm,
            layer.attention_norm, layer.cosine, layer.agreement,
        )
        for layer in seed.layers
    )  # fmt: skip
    return Table(
        title=f"{model}: means over the prompts' last tokens",
        columns=columns,
        rows=rows,
        caption="sd: population standard deviation over prompts, as the seed reports it",
    )


def _prompts(result: SuiteResult) -> Iterator[Section]:
    """The seed's appendix: one row a prompt and layer."""
    columns = (
        "prompt", "layer", "ratio", "‖We‖", "‖Wd‖", "cosine", "top expert of We", "of Wd", "same",
    )  # fmt: skip
    tables = []
    for model in _names(result):
        for found in results_of(result, model, PromptDecomposition):
            rows: list[tuple[Value, ...]] = [
                (
                    f"“{one.prompt}”", str(layer.layer), one.ratio, one.embed_norm,
                    one.attention_norm, one.cosine, _expert(one.embed_expert),
                    _expert(one.attention_expert), _yes(one.agree),
                )
                for layer in found.seed.layers
                for one in layer.prompts
            ]  # fmt: skip
            if rows:
                tables.append(
                    Table(title=f"{model}: every prompt", columns=columns, rows=tuple(rows))
                )
    if tables:
        yield Section(heading="Seed metric by prompt", tables=tuple(tables))


def _expert(expert: int | None) -> str | None:
    return None if expert is None else f"E{expert}"


def _yes(said: bool | None) -> str | None:
    return None if said is None else "yes" if said else "no"


def _readings(result: SuiteResult, model: str) -> list[tuple[str, CorrectedDecomposition]]:
    """(over what, decomposition): the corpus first, then the prompts."""
    corpus = [
        (f"{found.sampled} of {found.available} documents of {found.corpus}", found.corrected)
        for found in results_of(result, model, CorpusDecomposition)
    ]
    prompts = [
        ("the seed's prompts", found.corrected)
        for found in results_of(result, model, PromptDecomposition)
    ]
    return [(over, found) for over, found in (*corpus, *prompts) if found is not None]


def _shares(result: SuiteResult) -> Iterator[Section]:
    tables: list[Table] = []
    bars: list[Bars] = []
    notes: list[str] = []
    for model in _names(result):
        for over, found in _readings(result, model):
            size = f"{found.documents} documents, {found.tokens:,} tokens ({found.positions})"
            tables += _share_tables(f"{model}, {over}: {size}", found)
            bars.append(_share_bars(f"{model}, {over}: across tokens, mean over layers", found))
            notes += found.caveats
    if tables:
        yield Section(
            heading="Corrected shares",
            text=(
                "Signed shares of each part in the router's logits at the router's own input; "
                "they sum to 1. Across tokens: of the variance, without what is the same for "
                "every token. Of the token: mean of each token's own share. Of the margin: of "
                "the gap between the last expert chosen and the first passed over.",
                *dict.fromkeys(notes),
            ),
            tables=tuple(tables),
            bars=tuple(bars),
        )


def _across(layer: LayerShares) -> list[tuple[PartShare, Statistic]]:
    return [(p, p.across_tokens) for p in layer.parts if p.across_tokens is not None]


def _share_tables(title: str, found: CorrectedDecomposition) -> Iterator[Table]:
    """Shares across tokens by layer, then all three shares of the mean over layers."""
    parts = [part.part for part, _ in _across(found.mean)]
    rows: list[tuple[Value, ...]] = []
    for layer in (*found.layers, found.mean):
        shares = {part.part: share for part, share in _across(layer)}
        rows.append((_layer(layer.layer, found.mean_layers), *map(shares.get, parts)))
    yield Table(
        title=f"{title}; across tokens",
        columns=("layer", *parts),
        rows=tuple(rows),
        caption="95 % interval over documents in brackets",
    )
    whole = found.mean
    yield Table(
        title=f"{title}; mean over layers {', '.join(map(str, found.mean_layers))}",
        columns=("part", "across tokens", "of the token", "of the margin"),
        rows=tuple((p.part, p.across_tokens, p.per_token, p.margin) for p in whole.parts),
        caption=f"cancellation Σ‖part‖ / ‖whole‖: {_told(whole.cancellation)}",
    )


def _told(statistic: Statistic) -> str:
    return "unknown" if statistic.value is None else f"{statistic.value:.3f}"


def _layer(layer: int | None, mean_layers: Sequence[int]) -> str:
    return f"mean of {', '.join(map(str, mean_layers))}" if layer is None else str(layer)


def _share_bars(title: str, found: CorrectedDecomposition) -> Bars:
    """From 0 to 1, and further where a share or its interval goes beyond."""
    rows = tuple((part.part, share) for part, share in _across(found.mean))
    shares = [share for _, share in rows]
    ends = [end for s in shares for end in (s.value, s.ci_low, s.ci_high) if end is not None]
    return Bars(title=title, rows=rows, low=min([0.0, *ends]), high=max([1.0, *ends]))


def _sources(result: SuiteResult) -> Iterator[Section]:
    tables = [
        _source_table(model, router)
        for model in _names(result)
        for found in results_of(result, model, CorpusDecomposition)
        for router in found.sources
    ]
    if tables:
        yield Section(
            heading="Which layers a router reads",
            text=(
                f"Shares across tokens of single sources, the {SOURCES} largest of each router.",
            ),
            tables=tuple(tables),
        )


def _source_table(model: str, router: RouterSourceShares) -> Table:
    ranked = sorted(router.sources, key=lambda s: -abs(s.across_tokens.value or 0.0))
    rows = tuple(
        (source.part, "—" if source.layer is None else str(source.layer), source.across_tokens)
        for source in ranked[:SOURCES]
    )
    columns = ("part", "added by layer", "share across tokens")
    return Table(title=f"{model}: router of layer {router.layer}", columns=columns, rows=rows)


def _causal(result: SuiteResult) -> Iterator[Section]:
    found = [
        (model, check)
        for model in _names(result)
        for check in results_of(result, model, CausalCheck)
    ]
    if found:
        yield Section(
            heading="Causal check",
            text=(
                found[0][1].definition,
                *(_causal_verdict(model, check) for model, check in found),
            ),
            tables=tuple(_causal_table(model, check) for model, check in found),
            bars=tuple(_causal_bars(model, check) for model, check in found),
        )


def _causal_verdict(model: str, check: CausalCheck) -> str:
    reason = f": {check.reason}" if check.reason else ""
    return f"{model}: {check.verdict}{reason}."


def _causal_table(model: str, check: CausalCheck) -> Table:
    rows: list[tuple[Value, ...]] = []
    for layer in (*check.layers, check.mean):
        name = _layer(layer.layer, check.mean_layers)
        for part in layer.parts:
            for by, effect in (("mean", part.mean), ("resample", part.resample)):
                rows.append((name, part.part, by, *_effect(effect)))
        if layer.lead is not None:
            rows.append((name, "attention's lead", "resample", None, layer.lead, None))
    return Table(
        title=f"{model}: {check.documents} documents, {check.tokens:,} tokens",
        columns=(
            "layer", "part", "replaced by", "change of the experts", "beyond random directions",
            "length of the change",
        ),
        rows=tuple(rows),
        caption=(
            f"{check.directions} random directions a token, as long as the change; handed its own "
            f"stream the router chose the same experts for {_told(check.reproduced)} of the tokens"
        ),
    )  # fmt: skip


def _effect(effect: Effect) -> tuple[Value, ...]:
    return effect.change, effect.excess, effect.length


def _causal_bars(model: str, check: CausalCheck) -> Bars:
    rows = tuple((part.part, part.resample.change) for part in check.mean.parts)
    return Bars(
        title=f"{model}: change of the experts where a part is another document's, mean of layers",
        rows=rows,
        low=0.0,
        high=1.0,
        caption="1 − Jaccard: 0 the same experts, 1 none of them",
    )


def _identity(result: SuiteResult) -> Iterator[Section]:
    columns = ("model", "layer", "η²")
    rows: list[tuple[Value, ...]] = []
    text: list[str] = []
    for model in _names(result):
        for found in results_of(result, model, TokenIdentity):
            text += [found.definition, found.null]
            layers = [*found.layers, *([found.mean] if found.mean is not None else [])]
            rows += [(model, _layer(one.layer, found.mean_layers), one.eta2) for one in layers]
            text.append(_identity_size(model, found))
    if text:
        table = Table(title="Variance that the token foretells", columns=columns, rows=tuple(rows))
        yield Section(
            heading="Token identity", text=tuple(dict.fromkeys(text)), tables=(table,) * bool(rows)
        )


def _identity_size(model: str, found: TokenIdentity) -> str:
    reason = f"; {found.verdict}: {found.reason}" if found.reason else ""
    return (
        f"{model}: {found.ids} tokens are known well enough ({found.min_ids} needed), "
        f"{_told(found.coverage)} of all tokens{reason}."
    )
