"""What `attention_router` shows of its own: the seed's table, the shares, words in contexts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from moetui.analyses.attention_router import (
    CorpusDecomposition,
    CorrectedDecomposition,
    LayerShares,
    PartShare,
    PromptDecomposition,
    SeedLayer,
)
from moetui.analyses.context_sensitivity import ContextSensitivity, WordContexts
from moetui.stats import Statistic
from moetui.suites.results import SuiteResult
from moetui.suites.tables import Bars, Section, Table, Value
from moetui.suites.wording import number

R = TypeVar("R")


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """Seed metric, corrected shares and context sensitivity, as far as they were measured."""
    return (*_seed(result), *_shares(result), *_contexts(result))


def checks(result: SuiteResult, model: str) -> tuple[tuple[str, Value], ...]:
    """Layer 0, where no earlier layer can have added anything, and the error of the split."""
    found: list[tuple[str, Value]] = []
    for prompts in _of(result, model, PromptDecomposition):
        first = prompts.seed.layers[0] if prompts.seed.layers else None
        if first is not None and first.layer == 0:
            name = "seed ratio at layer 0 (0 by construction: attention there is left out)"
            found.append((name, number(first.ratio)))
    errors = [
        layer.completeness
        for reading in _readings(result, model)
        for layer in reading[1].layers
        if layer.completeness is not None
    ]
    if errors:
        name = "completeness error of the split, worst token (≤ 1e-5 in float32, ≤ 1e-3 in half)"
        found.append((name, f"{max(errors):.1e}"))
    return tuple(found)


def _of(result: SuiteResult, model: str, kind: type[R]) -> list[R]:
    found: list[Any] = [cell.result for cell in result.cells if cell.model == model]
    return [one for one in found if isinstance(one, kind)]


def _names(result: SuiteResult) -> list[str]:
    return [record.name for record in result.models]


def _seed(result: SuiteResult) -> Iterator[Section]:
    tables, definition = [], ""
    for model in _names(result):
        for found in _of(result, model, PromptDecomposition):
            definition = found.seed.definition
            tables.append(_seed_table(model, found.seed.layers))
    if tables:
        yield Section(
            heading="Seed metric by layer",
            text=(definition, "As published: no interval and no null belong to it."),
            tables=tuple(tables),
        )


def _seed_table(model: str, layers: Sequence[SeedLayer]) -> Table:
    columns = ("layer", "prompts", "ratio", "± sd", "‖We‖", "‖Wd‖", "cosine", "same top expert")
    rows = tuple(
        (
            str(layer.layer), layer.n_prompts, layer.ratio, layer.ratio_std, layer.embed_norm,
            layer.attention_norm, layer.cosine, layer.agreement,
        )
        for layer in layers
    )  # fmt: skip
    return Table(
        title=f"{model}: means over the prompts' last tokens",
        columns=columns,
        rows=rows,
        caption="sd: population standard deviation over prompts, as the seed reports it",
    )


def _readings(result: SuiteResult, model: str) -> list[tuple[str, CorrectedDecomposition]]:
    """(over what, decomposition): the corpus first, then the prompts."""
    corpus = [
        (f"{found.sampled} of {found.available} documents of {found.corpus}", found.corrected)
        for found in _of(result, model, CorpusDecomposition)
    ]
    prompts = [
        ("the seed's prompts", found.corrected) for found in _of(result, model, PromptDecomposition)
    ]
    return [(over, found) for over, found in (*corpus, *prompts) if found is not None]


def _shares(result: SuiteResult) -> Iterator[Section]:
    tables: list[Table] = []
    bars: list[Bars] = []
    notes: list[str] = []
    for model in _names(result):
        for over, found in _readings(result, model):
            size = f"{found.documents} documents, {found.tokens:,} tokens ({found.positions})"
            tables.append(_share_table(f"{model}, {over}: {size}", found))
            bars.append(_share_bars(f"{model}, {over}: mean over layers", found))
            notes += found.caveats
    if tables:
        yield Section(
            heading="Corrected shares",
            text=(
                "Share of each part in the variance of the router's logits across tokens, all "
                "experts together, at the router's own input; signed, and 1 in all.",
                *dict.fromkeys(notes),
            ),
            tables=tuple(tables),
            bars=tuple(bars),
        )


def _across(layer: LayerShares) -> list[tuple[PartShare, Statistic]]:
    return [(p, p.across_tokens) for p in layer.parts if p.across_tokens is not None]


def _share_table(title: str, found: CorrectedDecomposition) -> Table:
    parts = [part.part for part, _ in _across(found.mean)]
    rows: list[tuple[Value, ...]] = []
    for layer in (*found.layers, found.mean):
        shares = {part.part: share for part, share in _across(layer)}
        name = _mean_name(found) if layer.layer is None else str(layer.layer)
        rows.append((name, *(shares.get(part) for part in parts)))
    caption = "95 % interval over documents in brackets"
    return Table(title=title, columns=("layer", *parts), rows=tuple(rows), caption=caption)


def _mean_name(found: CorrectedDecomposition) -> str:
    return f"mean of {', '.join(map(str, found.mean_layers))}"


def _share_bars(title: str, found: CorrectedDecomposition) -> Bars:
    """From 0 to 1, and further where a share or its interval goes beyond."""
    rows = tuple((part.part, share) for part, share in _across(found.mean))
    shares = [share for _, share in rows]
    ends = [end for s in shares for end in (s.value, s.ci_low, s.ci_high) if end is not None]
    return Bars(title=title, rows=rows, low=min([0.0, *ends]), high=max([1.0, *ends]))


def _contexts(result: SuiteResult) -> Iterator[Section]:
    totals, tables, definition = [], [], ""
    for model in _names(result):
        for found in _of(result, model, ContextSensitivity):
            definition = found.seed_definition
            cells = f"{found.seed_sensitive} of {found.seed_cells} cells"
            totals += [
                (model, f"seed: rate of sensitive cells ({cells})", found.seed_rate),
                (model, "corrected: 1 − Jaccard of the chosen sets", found.set_distance),
                (model, "corrected: total variation of the weights", found.weight_distance),
            ]
            tables.append(_word_table(model, found.words))
    if totals:
        columns = ("model", "measure", "value")
        whole = Table(title="Over all words and layers", columns=columns, rows=tuple(totals))
        yield Section(
            heading="Context sensitivity",
            text=(
                f"Seed: {definition}",
                "Corrected: equal token ids only; the null is the same token with the context "
                "shuffled. A small p means closer than chance.",
            ),
            tables=(whole, *tables),
        )


def _word_table(model: str, words: Sequence[WordContexts]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for word in words:
        token = None if word.token_text is None else f"“{word.token_text}”"
        kept = f"{len(word.kept)} of {len(word.kept) + len(word.dropped)}"
        lead = (f"“{word.word}”", token, kept)
        rows += [
            (
                *lead, str(layer.layer), layer.distinct_top_experts, layer.set_distance,
                layer.weight_distance,
            )
            for layer in word.layers
        ]  # fmt: skip
        if not word.layers:
            rows.append((*lead, f"{word.verdict}: {word.reason}", None, None, None))
    columns = (
        "word", "token", "contexts kept", "layer", "different top-1 experts", "1 − Jaccard",
        "total variation",
    )  # fmt: skip
    return Table(title=f"{model}: words in their contexts", columns=columns, rows=tuple(rows))
