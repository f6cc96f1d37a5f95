"""What `generation` shows of its own: the seed's numbers, steps, segments, phases, answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from moetui.analyses.answer_routing import AnswersRouting
from moetui.analyses.fidelity import NEAR_TIES, LayerFidelity, RoutingFidelity
from moetui.analyses.generated_routing import GeneratedRouting, NaturalRouting
from moetui.analyses.persistence import DEFINITION, NULLS, Persistence
from moetui.analyses.seed_generation import SeedGeneration
from moetui.analyses.segments import DEFINITION as SEGMENTS
from moetui.analyses.segments import SegmentConsistency
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Section, Table, Value
from moetui.suites.wording import number, visible

R = TypeVar("R")

# Phases that a report lists.
CHANGES = 20


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """As far as they were measured."""
    return (
        *_seed(result),
        *_steps(result),
        *_segments(result),
        *_phases(result),
        *_decode(result),
        *_answers(result),
    )


def _each(result: SuiteResult, kind: type[R]) -> list[tuple[str, R]]:
    return [(m.name, one) for m in result.models for one in results_of(result, m.name, kind)]


def _seed(result: SuiteResult) -> Iterator[Section]:
    found = _each(result, SeedGeneration)
    if not found:
        return
    tables = []
    for model, one in found:
        rows = tuple(
            (f"“{visible(t.prompt)}”", t.steps, t.consistency, t.handoffs, len(t.phases))
            for t in one.texts
        )
        tables.append(
            Table(
                title=f"{model}: the seed's prompts",
                columns=("prompt", "steps", "consistency", "handoffs", "steps with a phase"),
                rows=rows,
            )
        )
    yield Section(
        heading="Generation, seed: consistency, handoffs, phases",
        text=(f"{found[0][1].definition}.", f"Null: {found[0][1].null}."),
        tables=tuple(tables),
    )


def _read(result: SuiteResult) -> Iterator[tuple[str, GeneratedRouting | NaturalRouting]]:
    """What was read, written texts before documents."""
    for model, written in _each(result, GeneratedRouting):
        yield f"{model}, written texts", written
    for model, natural in _each(result, NaturalRouting):
        yield f"{model}, documents", natural


def _steps(result: SuiteResult) -> Iterator[Section]:
    found = list(_read(result))
    if found:
        yield Section(
            heading="Generation: do experts stay from token to token?",
            text=(
                f"{DEFINITION}.",
                f"{NULLS}.",
                *(_said(name, one.persistence) for name, one in found),
            ),
            tables=tuple(_step_table(name, one.persistence) for name, one in found),
        )


def _said(name: str, found: Persistence) -> str:
    return (
        f"{name}: {found.sequences} texts, {found.steps:,} steps; {number(found.repeats.value)} of "
        f"the steps repeat the token before; equal tokens can move {found.movable:.0%} of the "
        "tokens."
    )


def _step_table(name: str, found: Persistence) -> Table:
    rows = tuple(
        (
            "mean" if one.layer is None else str(one.layer),
            one.overlap, one.uniform, one.over_sequence, one.over_tokens,
        )
        for one in found.layers
    )  # fmt: skip
    return Table(
        title=f"{name}: overlap of neighbouring steps",
        columns=("layer", "overlap", "k/E", "over the sequence", "over equal tokens"),
        rows=rows,
        caption="null of the overlap: chance; q family-wise over layers",
        together=True,
    )


def _segments(result: SuiteResult) -> Iterator[Section]:
    found = list(_read(result))
    if found:
        yield Section(
            heading="Generation: local routing consistency",
            text=(f"{SEGMENTS}.",),
            tables=tuple(_segment_table(name, one.segments) for name, one in found),
        )


def _segment_table(name: str, found: tuple[SegmentConsistency, ...]) -> Table:
    rows = tuple(
        (
            str(one.length),
            one.segments,
            one.share if one.reason is None else one.reason,
            one.over_tokens if one.reason is None else None,
            one.uniform,
        )
        for one in found
    )
    return Table(
        title=f"{name}: what the best k experts of a segment serve",
        columns=("tokens", "segments", "share served", "over equal tokens", "k/E"),
        rows=rows,
        caption="null: mean and range of the token-stratified shuffles",
        together=True,
    )


def _phases(result: SuiteResult) -> Iterator[Section]:
    found = [(model, one.phases) for model, one in _each(result, GeneratedRouting)]
    if not found:
        return
    text, tables = [f"{found[0][1].definition}."], []
    for model, one in found:
        told = one.reason or (
            f"{one.movable:.0%} of their tokens can change places. Distances below those of equal "
            "tokens mean that a text keeps to experts of its own, which hides small phases"
        )
        text.append(
            f"{model}: {one.texts} texts, {one.steps:,} steps, windows of {one.window} tokens, "
            f"layers {', '.join(map(str, one.layers))}; {told}."
        )
        rows = (
            ("texts with a phase", one.with_phase),
            ("distance less that of equal tokens, all steps", one.over_tokens),
            ("the same, at the first written token", one.boundary),
        )
        tables.append(
            Table(title=f"{model}: phases", columns=("what", "value"), rows=rows, together=True)
        )
        if one.changes:
            listed = tuple(
                (
                    c.text,
                    c.step,
                    "written" if c.generated else "prompt",
                    c.score,
                    c.expected,
                    c.p,
                    c.q,
                )
                for c in one.changes[:CHANGES]
            )
            tables.append(
                Table(
                    title=f"{model}: the first {len(listed)} of {len(one.changes)} phases",
                    columns=("text", "begins at token", "in", "distance", "equal tokens", "p", "q"),
                    rows=listed,
                    caption="p family-wise over the steps of the text, q over texts",
                )
            )
    yield Section(heading="Generation: phases", text=tuple(text), tables=tuple(tables))


def _decode(result: SuiteResult) -> Iterator[Section]:
    found = [
        (model, one.decode)
        for model, one in _each(result, GeneratedRouting)
        if one.decode is not None
    ]
    if found:
        yield Section(
            heading="Generation: decoding against prefill",
            text=(
                "The written tokens as they were decoded one by one, against one pass over the "
                "finished text. Both compute the same numbers in another order, so only close "
                "calls should differ.",
                f"{NEAR_TIES}; the reference is the one pass.",
            ),
            tables=tuple(_decode_table(model, one) for model, one in found),
        )


def _decode_table(model: str, found: RoutingFidelity) -> Table:
    layers = (_decode_row(str(one.layer), one) for one in found.layers)
    return Table(
        title=f"{model}: {found.tokens:,} tokens decoded and read again",
        columns=("layer", "sets that differ", "Jaccard", "near ties among them", "typical change"),
        rows=(_decode_row("mean", found.overall), *layers),
        caption="null: experts of other tokens; typical change of the gap at the k-boundary",
        together=True,
    )


def _decode_row(name: str, one: LayerFidelity) -> tuple[Value, ...]:
    return name, one.differs, one.jaccard, one.near_ties, one.typical_change


def _answers(result: SuiteResult) -> Iterator[Section]:
    found = _each(result, AnswersRouting)
    if not found:
        return
    text = [f"{found[0][1].definition}."]
    for model, one in found:
        told = f" ({one.reason})" if one.reason else ""
        text.append(f"{model}: {one.right} right, {one.wrong} wrong: {one.verdict}{told}.")
    yield Section(
        heading="Generation: right against wrong answers",
        text=tuple(text),
        tables=tuple(
            Table(
                title=f"{model}: routing of answers",
                columns=("what", "right", "wrong", "wrong − right"),
                rows=tuple((d.what, d.right, d.wrong, d.difference) for d in one.differences),
                together=True,
            )
            for model, one in found
            if one.differences
        ),
    )
