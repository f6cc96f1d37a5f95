"""What the report shows of the study `attention_routing`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moetui.analyses.attention_routing import AttentionRouting, LayerPrediction
from moetui.analyses.seed_prediction import SeedAttention, SeedPrediction
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Bars, Section, Table, Value, estimate


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """The corrected predictors, then the published ones; none where none were made."""
    return (*_predictors(result), *_seed(result))


def _predictors(result: SuiteResult) -> Iterator[Section]:
    found = [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, AttentionRouting)
    ]
    if found:
        first = found[0][1]
        yield Section(
            heading="What foretells the experts of a token",
            text=(
                f"{first.definition}.",
                f"{first.gain_definition}. {first.null[0].upper()}{first.null[1:]}.",
                *(_size(model, one) for model, one in found),
            ),
            tables=tuple(_table(model, one) for model, one in found),
            bars=tuple(_bars(model, one) for model, one in found),
        )


def _size(model: str, found: AttentionRouting) -> str:
    missing = "".join(f" {name}: not there, {why}." for name, why in found.missing.items())
    return (
        f"{model}: fitted to {found.fit_documents} documents, judged on {found.documents} others "
        f"({found.tokens:,} tokens, at most {found.sampled} of each); the table knows "
        f"{found.coverage:.0%} of their tokens, and {found.movable:.0%} have an equal among them; "
        f"{found.k} experts drawn at random recall "
        f"{found.chance:.3f}.{missing}"
    )


def _table(model: str, found: AttentionRouting) -> Table:
    rows: list[tuple[Value, ...]] = [
        (
            _layer(layer, found), one.predictor, one.recall, one.gain, one.added,
            one.gain_beyond, one.added_beyond, one.beyond_both,
        )
        for layer in (*found.layers, found.mean)
        for one in layer.predictors
    ]  # fmt: skip
    return Table(
        title=f"{model}: recall@{found.k}",
        columns=(
            "layer", "predictor", "recall", "gain over token identity", "added to it",
            "gain beyond equal tokens", "added beyond them", "beyond token and document",
        ),
        rows=tuple(rows),
        caption="95 % interval over documents; null: features exchanged within documents, of what "
        "is beyond equal tokens among these",
    )  # fmt: skip


def _layer(layer: LayerPrediction, found: AttentionRouting) -> str:
    if layer.layer is not None:
        return str(layer.layer)
    return f"mean of {', '.join(str(one.layer) for one in found.layers)}"


def _bars(model: str, found: AttentionRouting) -> Bars:
    return Bars(
        title=f"{model}: recall@{found.k}, mean over layers",
        rows=tuple((one.predictor, estimate(one.recall)) for one in found.mean.predictors),
        low=0.0,
        high=1.0,
        caption=f"drawn at random: {found.chance:.3f}",
    )


def _seed(result: SuiteResult) -> Iterator[Section]:
    found = [
        (record.name, one.scores)
        for record in result.models
        for one in results_of(result, record.name, SeedAttention)
    ]
    if found:
        yield Section(
            heading="Prediction from attention as published",
            text=(f"{found[0][1].definition}.",),
            tables=tuple(seed_table(model, scores) for model, scores in found),
        )


def seed_table(model: str, found: SeedPrediction) -> Table:
    """The published scores by layer, each beside that of a constant answer."""
    columns = (
        "layer", "top expert", "constant", "any overlap", "constant", "fetched", "constant",
    )  # fmt: skip
    rows: Sequence[tuple[Value, ...]] = [
        (
            "mean" if one.layer is None else str(one.layer),
            one.fitted.accuracy, one.constant.accuracy,
            one.fitted.any_overlap, one.constant.any_overlap,
            one.fitted.fetched, one.constant.fetched,
        )
        for one in (*found.layers, found.mean)
    ]  # fmt: skip
    return Table(
        title=f"{model}: {found.features} features, {found.prompts} prompts",
        columns=columns,
        rows=tuple(rows),
        caption=f"any overlap of experts drawn at random: {found.chance_overlap:.3f}",
    )
