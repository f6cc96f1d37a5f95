"""What `merging` shows of its own: similarities, merged pairs, and the front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moetui.analyses.merge_front import MergeFront
from moetui.analyses.merged_pairs import MergedPairs
from moetui.analyses.output_similarity import OutputSimilarity
from moetui.analyses.pair_similarity import NULL, PairSimilarity
from moetui.analyses.weight_similarity import WeightSimilarity
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Bars, Section, Table, Value, estimate
from moetui.suites.wording import number

_MIB = 1 << 20


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """In the order in which they build on one another; none where nothing of it was made."""
    return (*_similarity(result), *_pairs(result), *_front(result))


def similarity_rows(
    layers: Sequence[tuple[int, int | None, Sequence[PairSimilarity]]],
) -> tuple[tuple[Value, ...], ...]:
    """A row for every layer and measure."""
    return tuple(
        (
            one.what,
            str(layer),
            "—" if partner is None or one.above is None else str(partner),
            one.pairs,
            one.mean,
            one.largest,
            f"E{one.experts[0]}, E{one.experts[1]}",
            one.above,
        )
        for layer, partner, found in layers
        for one in found
    )


SIMILARITY_COLUMNS = (
    "measure", "layer", "null from layer", "pairs", "mean", "largest", "its experts",
    "above the null's 97.5 %",
)  # fmt: skip


def _similarity(result: SuiteResult) -> Iterator[Section]:
    tables, text = [], []
    for record in result.models:
        outputs = results_of(result, record.name, OutputSimilarity)
        weights = results_of(result, record.name, WeightSimilarity)
        layers = [
            *((x.layer, x.partner, x.similarities) for one in outputs for x in one.layers),
            *((x.layer, x.partner, x.similarities) for one in weights for x in one.layers),
        ]
        if not layers:
            continue
        text += [f"{one.definition}." for one in outputs]
        text += [f"{one.definition}." for one in weights]
        text += [f"{NULL}."]
        text += [
            f"{record.name}, layer {x.layer}: weights of {x.compared} of {x.experts} experts."
            for one in weights
            for x in one.layers
            if x.compared < x.experts
        ]
        tables.append(
            Table(
                title=f"{record.name}: experts of a layer, pair by pair",
                columns=SIMILARITY_COLUMNS,
                rows=tuple(sorted(similarity_rows(layers), key=lambda row: str(row[0]))),
                together=True,
            )
        )
    if tables:
        yield Section(
            heading="How alike experts are", text=tuple(dict.fromkeys(text)), tables=tuple(tables)
        )


def _pairs(result: SuiteResult) -> Iterator[Section]:
    tables, text = [], []
    for record in result.models:
        for found in results_of(result, record.name, MergedPairs):
            text += [
                f"{found.definition}.",
                f"ΔNLL on {found.documents:,} documents; beside random pairs on "
                f"{found.control_documents:,} of them.",
            ]
            tables.append(_pair_table(record.name, found))
            tables.append(_foretold_table(record.name, found))
    if tables:
        yield Section(
            heading="One pair merged", text=tuple(dict.fromkeys(text)), tables=tuple(tables)
        )


def _pair_table(model: str, found: MergedPairs) -> Table:
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            pair.kind,
            str(pair.layer),
            f"E{pair.experts[0]}, E{pair.experts[1]}",
            pair.similarity,
            pair.load,
            pair.change,
            pair.equivalence.outcome,
            pair.beside,
            pair.moved,
        )
        for pair in found.pairs
    )
    return Table(
        title=f"{model}: the pair merged in each layer",
        columns=(
            "pair", "layer", "experts", "cosine", "tokens that use it", "ΔNLL",
            f"within ±{number(found.margin)}", "ΔNLL beside random pairs",
            "|Δ| of a token beside random pairs",
        ),
        rows=rows,
        caption="cosine: of outputs for the similar pair, of weights as they lie for the seed's; "
        "random pairs: of about the load of the pair, merged in the same way",
        together=True,
    )  # fmt: skip


def _foretold_table(model: str, found: MergedPairs) -> Table:
    return Table(
        title=f"{model}: does a similarity foretell what merging changes?",
        columns=("similarity", "pairs", "Spearman ρ with |Δ| of a token"),
        rows=tuple((one.similarity, one.pairs, one.rho) for one in found.foretold),
        caption="within layers; a similarity that helps has a negative ρ",
        together=True,
    )


def _front(result: SuiteResult) -> Iterator[Section]:
    tables, bars, text = [], [], []
    for record in result.models:
        for found in results_of(result, record.name, MergeFront):
            text.append(f"{found.definition}.")
            text += [f"{record.name}: not tried: {reason}." for reason in found.refused]
            tables.append(_front_table(record.name, found))
            bars += list(_front_bars(record.name, found))
    if tables:
        yield Section(
            heading="Merging against pruning",
            text=tuple(dict.fromkeys(text)),
            tables=tuple(tables),
            bars=tuple(bars),
        )


def _front_table(model: str, found: MergeFront) -> Table:
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            number(point.share),
            point.method,
            point.removed,
            point.bytes / _MIB,
            point.change,
            point.equivalence.outcome,
            point.against_reap,
            point.beside,
            "yes" if point.on_front else "",
        )
        for point in found.points
    )
    return Table(
        title=f"{model}: experts removed in layers {', '.join(map(str, found.layers))}",
        columns=(
            "share", "way", "experts a layer", "MiB saved", "ΔNLL",
            f"within ±{number(found.margin)}", "less REAP's", "beside random merges", "on front",
        ),
        rows=rows,
        caption=f"{found.documents:,} documents; beside random merges on "
        f"{found.control_documents:,} of them",
        together=True,
    )  # fmt: skip


def _front_bars(model: str, found: MergeFront) -> Iterator[Bars]:
    rows = tuple(
        (f"{point.share:g} {point.method}", estimate(point.change)) for point in found.points
    )
    ends = [end for _, s in rows for end in (s.value, s.ci_low, s.ci_high) if end is not None]
    if ends:
        yield Bars(
            title=f"{model}: ΔNLL, nats a token",
            rows=rows,
            low=min(0.0, *ends),
            high=max(0.0, *ends),
        )
