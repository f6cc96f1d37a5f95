"""What `anatomy` shows of its own: where the parameters are, ranks, what experts share."""

from __future__ import annotations

from collections.abc import Iterator

from moetui.analyses.matrix_ranks import MatrixRanks
from moetui.analyses.pair_similarity import NULL
from moetui.analyses.parameter_shares import ParameterShares
from moetui.analyses.weight_similarity import WeightSimilarity
from moetui.suites.moe_dynamics.merging_sections import SIMILARITY_COLUMNS, similarity_rows
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Section, Table, Value
from moetui.suites.wording import number

_MIB = 1 << 20


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """Parameters, ranks, what is in common, pairs."""
    return (*_parameters(result), *_ranks(result), *_pairs(result))


def _parameters(result: SuiteResult) -> Iterator[Section]:
    tables, text = [], []
    for record in result.models:
        for found in results_of(result, record.name, ParameterShares):
            if found.dense is not None:
                text.append(f"{record.name}: {found.dense}.")
            if found.caveat is not None:
                text.append(f"{record.name}: {found.caveat}.")
            tables.append(_parameter_table(record.name, found))
    if tables:
        yield Section(heading="Where the parameters are", text=tuple(text), tables=tuple(tables))


def _parameter_table(model: str, found: ParameterShares) -> Table:
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (one.part, one.parameters, one.share, one.bytes / _MIB, one.active) for one in found.parts
    )
    whole: tuple[Value, ...] = (
        "all", found.total, 1.0, sum(one.bytes for one in found.parts) / _MIB, found.active,
    )  # fmt: skip
    bits = "unknown" if found.router_bits is None else f"{found.router_bits} bits"
    routed = (
        f"{found.moe_layers} layers route among {found.experts} experts, {found.top_k} a token; "
        f"routers in {bits}"
        if found.dense is None
        else "no layer routes"
    )
    return Table(
        title=f"{model}: learnt numbers by part",
        columns=("part", "numbers", "share", "MiB", "used by one token"),
        rows=(*rows, whole),
        caption=f"{routed}; checkpoint: {found.quantization or 'not quantised'}. MiB: as computed "
        "with",
    )


def _ranks(result: SuiteResult) -> Iterator[Section]:
    tables, text = [], []
    for record in result.models:
        for found in results_of(result, record.name, MatrixRanks):
            text += [f"{found.definition}.", f"{found.null}.", f"{found.in_common}."]
            tables.append(_rank_table(record.name, found))
            if found.common:
                tables.append(_common_table(record.name, found))
    if tables:
        yield Section(
            heading="How many directions routers and experts use",
            text=tuple(dict.fromkeys(text)),
            tables=tuple(tables),
        )


def _rank_table(model: str, found: MatrixRanks) -> Table:
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            one.what,
            str(one.layer),
            f"{one.rows} × {one.columns}",
            one.matrices,
            one.rank,
            f"{one.lowest}-{one.highest}",
            one.relative,
        )
        for one in sorted(found.ranks, key=lambda one: (one.what, one.layer))
    )
    return Table(
        title=f"{model}: effective rank at {number(found.energy)} of the energy",
        columns=("matrix", "layer", "shape", "matrices", "mean rank", "range", "÷ random"),
        rows=rows,
        together=True,
    )


def _common_table(model: str, found: MatrixRanks) -> Table:
    return Table(
        title=f"{model}: what the experts of a layer have in common",
        columns=("matrix", "layer", "experts", "share of the energy"),
        rows=tuple((one.what, str(one.layer), one.experts, one.share) for one in found.common),
        together=True,
    )


def _pairs(result: SuiteResult) -> Iterator[Section]:
    tables, text = [], []
    for record in result.models:
        for found in results_of(result, record.name, WeightSimilarity):
            text += [f"{found.definition}.", f"{NULL}."]
            layers = [(x.layer, x.partner, x.similarities) for x in found.layers]
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
