"""What `circuits` shows of its own: the seed's matching, edges, paths, causes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from moetui.analyses.causal_edges import CausalEdges
from moetui.analyses.expert_edges import Edge, ExpertEdges
from moetui.analyses.expert_paths import Place
from moetui.analyses.seed_circuits import SeedCircuits
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Section, Table
from moetui.suites.wording import expert_name, number, probability

R = TypeVar("R")

# Edges and pipelines that a report lists.
EDGES, PIPELINES = 30, 10


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """As far as they were measured."""
    return (*_seed(result), *_edges(result), *_causes(result))


def _each(result: SuiteResult, kind: type[R]) -> list[tuple[str, R]]:
    return [(m.name, one) for m in result.models for one in results_of(result, m.name, kind)]


def _place(place: Place) -> str:
    return expert_name(place.layer, place.expert)


def _between(source_layer: int, source: int, target_layer: int, target: int) -> str:
    return f"{expert_name(source_layer, source)} → {expert_name(target_layer, target)}"


def _seed(result: SuiteResult) -> Iterator[Section]:
    found = _each(result, SeedCircuits)
    if not found:
        return
    tables = []
    for model, one in found:
        rows = tuple(
            (f"{a.source_layer} → {a.target_layer}", a.alignment, a.matched) for a in one.alignments
        )
        tables.append(
            Table(
                title=f"{model}: alignment of neighbouring layers",
                columns=("layers", "alignment", "matched experts"),
                rows=rows,
            )
        )
        if one.found:
            chains = tuple(
                (" → ".join(map(_place, p.places)), p.consistency, p.coverage)
                for p in one.found[:PIPELINES]
            )
            tables.append(
                Table(
                    title=f"{model}: the first {len(chains)} of {len(one.found)} pipelines",
                    columns=("pipeline", "consistency", "share of layers"),
                    rows=chains,
                )
            )
    yield Section(
        heading="Circuits, seed: experts matched by correlation",
        text=(f"{found[0][1].definition}.", f"Null: {found[0][1].null}."),
        tables=tuple(tables),
    )


def _edges(result: SuiteResult) -> Iterator[Section]:
    found = _each(result, ExpertEdges)
    if not found:
        return
    tables = []
    for model, one in found:
        tables += [_by_layers(model, one), _listed(model, one)]
        if one.paths.paths:
            tables.append(_paths(model, one))
    yield Section(
        heading="Circuits: edges between experts of two layers",
        text=(
            f"{found[0][1].definition}.",
            f"{found[0][1].nulls}.",
            "Edges need no training: layers that read one stream choose alike. What silencing a "
            "source does stands in the next section, random weights at the end.",
            *(_said(model, one) for model, one in found),
        ),
        tables=tuple(table for table in tables if table.rows),
    )


def _said(model: str, one: ExpertEdges) -> str:
    longest, joined = one.paths.longest, one.paths.joined
    told = (
        f"{model}: {one.beyond_both.value:.0f} of {one.cells:,} pairs of experts beat the shuffles "
        f"within documents and among equal tokens, each by itself, "
        f"{one.beyond_together.value:.0f} of them also that among equal tokens of a document; "
        f"{one.only_documents:,} beat only that within documents, {one.only_tokens:,} only that "
        f"among equal tokens. Among equal tokens {one.movable_tokens:.0%} of the tokens can move, "
        f"among those of a document {one.movable_together:.0%}."
    )
    if longest.p is not None:
        told += (
            f" Longest path {longest.value:.0f} edges ({number(longest.null_mean)} with edges "
            f"dealt out at random, p {probability(longest.p)}); {joined.value:,.0f} pairs of edges "
            f"join ({number(joined.null_mean)}, p {probability(joined.p)})."
        )
    return told


def _by_layers(model: str, one: ExpertEdges) -> Table:
    rows = tuple(
        (
            f"{layer.source_layer} → {layer.target_layer}", layer.tested, layer.beyond_together,
            layer.beyond_both, layer.beyond_documents, layer.information.held_out,
            layer.information.beyond_tokens, layer.information.mutual,
            layer.information.mutual_tokens,
        )
        for layer in one.layers
    )  # fmt: skip
    return Table(
        title=f"{model}: what a layer tells of another, nats a pair of experts",
        columns=(
            "layers", "pairs tested", "edges beyond token and document together",
            "edges beyond both", "edges beyond documents", "held out",
            "held out, beyond equal tokens", "MI less that within documents",
            "MI less that among equal tokens",
        ),
        rows=rows,
        caption="MI: plug-in mutual information of the evaluation documents; null: its shuffle",
    )  # fmt: skip


def _listed(model: str, one: ExpertEdges) -> Table:
    total = int(one.beyond_both.value or 0) + one.only_documents + one.only_tokens
    rows = tuple(
        (
            _between(e.source_layer, e.source, e.target_layer, e.target), e.beaten, e.lift,
            e.evaluation.pmi, e.evaluation.g2, e.evaluation.over_tokens,
            e.evaluation.over_together, e.calibration.lift, *_domain(e),
        )
        for e in one.edges[:EDGES]
    )  # fmt: skip
    return Table(
        title=f"{model}: the first {len(rows)} of {total} edges, those that beat all three "
        "shuffles before others, of each those that stand out most from equal tokens",
        columns=(
            "edge", "beats", "lift", "PMI, nats", "G²", "over equal tokens",
            "over equal tokens of a document", "lift, calibration", "most in", "lift in there",
        ),
        rows=rows,
        caption="lift, PMI and G² against independent layers, in the evaluation documents; null: "
        "the lift of equal tokens; over equal tokens of a document: of the tokens that it has "
        "twice; beats both: each by itself, so it may be token and document together; most in: "
        "where the pair's share of tokens is highest, with q by permutation of the documents' "
        "domains",
    )  # fmt: skip


def _domain(edge: Edge) -> tuple[str | None, float | None]:
    if edge.domain is None:
        return None, None
    q = probability(edge.domain.rate.q)
    told = f"{edge.domain.domain} ({number(edge.domain.rate.value)}, q {q})"
    return told, edge.domain.lift_inside


def _paths(model: str, one: ExpertEdges) -> Table:
    rows = tuple(
        (" → ".join(map(_place, path.places)), path.weakest, path.tokens)
        for path in one.paths.paths
    )
    return Table(
        title=f"{model}: paths of edges that beat all three shuffles",
        columns=("path", "weakest edge, over equal tokens", "tokens that take all of it"),
        rows=rows,
        caption="the longest first, no edge in two of them; null: the product of the loads",
        together=True,
    )


def _causes(result: SuiteResult) -> Iterator[Section]:
    found = [(model, one) for model, one in _each(result, CausalEdges) if one.edges]
    if found:
        yield Section(
            heading="Circuits: does the source bring about the target?",
            text=(
                f"{found[0][1].definition}.",
                *(
                    f"{model}: {len(one.edges)} of {one.eligible} edges that begin in layers "
                    f"{', '.join(map(str, one.layers))}, on {one.n_documents} documents, "
                    f"{one.n_tokens:,} tokens."
                    for model, one in found
                ),
            ),
            tables=tuple(_cause_table(model, one) for model, one in found),
        )


def _cause_table(model: str, one: CausalEdges) -> Table:
    rows = tuple(
        (
            _between(e.source_layer, e.source, e.target_layer, e.target),
            e.verdict if e.reason is None else f"{e.verdict}: {e.reason}",
            e.before, e.effect, e.over_controls, e.controls, e.source_weight, e.control_weight,
        )
        for e in one.edges
    )  # fmt: skip
    return Table(
        title=f"{model}: the source silenced",
        columns=(
            "edge", "verdict", "target chosen before", "change", "less the controls'",
            "controls", "source's weight", "controls' weight",
        ),
        rows=rows,
        caption="of the tokens that choose the source; null of the change: mean and range of the "
        "controls",
        together=True,
    )  # fmt: skip
