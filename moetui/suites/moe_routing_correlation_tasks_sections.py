"""What `moe_routing_correlation` shows of its arithmetic: probes, answers, virtual experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, TypeVar

from moetui.analyses.probe_fit import CONTROLS, PERMUTATIONS
from moetui.analyses.probes import EMBEDDING, RESIDUAL, TOKENS, Probe, Probes
from moetui.analyses.task_accuracy import Answered, TaskAccuracy, paired_accuracy
from moetui.analyses.task_prompts import TASKS
from moetui.analyses.virtual_experts import VirtualExperts
from moetui.suites.results import SuiteResult
from moetui.suites.tables import Section, Table, Value

R = TypeVar("R")

PROBE_TEXT = (
    "A probe is a linear classifier of the last token into four operations. Unseen: it is asked in "
    "wordings whose words for the operation, and about numbers, that were in none of its training "
    f"prompts; its null trains it anew {PERMUTATIONS} times with the operations dealt out at "
    "random among the wordings of each template.",
    "Seen: only the numbers are new. There any labels of the wordings can be remembered, so the "
    f"null is the control task, {CONTROLS} draws of a random operation for every wording; the "
    "selectivity is what is left.",
    "The seed scores its probe on the nine prompts that train it; its null is how well the same "
    "fit reaches shuffled labels.",
)


def task_sections(result: SuiteResult) -> tuple[Section, ...]:
    """All of them, as far as they were measured."""
    return (*_probes(result), *_accuracy(result), *_virtual_experts(result))


def task_checks(result: SuiteResult, model: str) -> tuple[tuple[str, Value], ...]:
    """Rows of the sanity table: what should find nothing, and whether all fits converged."""
    found: list[tuple[str, Value]] = []
    for probes in _of(result, model, Probes):
        for name in (EMBEDDING, TOKENS):
            probe = probes.probe(name)
            if probe is not None:
                found.append((f"probe of the {name}, unseen words: chance expected", probe.unseen))
        fits = sum(probe.fits for probe in probes.probes)
        missed = sum(probe.not_converged for probe in probes.probes)
        if fits:
            found.append(("probes that did not converge", f"{missed:,} of {fits:,}"))
    return tuple(found)


def _of(result: SuiteResult, model: str, kind: type[R]) -> list[R]:
    found: list[Any] = [cell.result for cell in result.cells if cell.model == model]
    return [one for one in found if isinstance(one, kind)]


def _each(result: SuiteResult, kind: type[R]) -> list[tuple[str, R]]:
    return [
        (record.name, one) for record in result.models for one in _of(result, record.name, kind)
    ]


def _probes(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, Probes)
    if not each:
        return
    tables = [
        table
        for model, found in each
        for table in (_seed_probes(model, found), *_corrected_probes(model, found))
    ]
    notes = [
        f"{model}: {note}"
        for model, found in each
        for note in (found.no_routing, found.reason, *found.warnings)
        if note is not None
    ]
    yield Section(
        heading="Probes of the operation",
        text=(*PROBE_TEXT, *dict.fromkeys(notes)),
        tables=tuple(tables),
    )


def _seed_probes(model: str, found: Probes) -> Table:
    rows = tuple((f"{p.depth:.0%}", p.layer, p.accuracy) for p in found.seed)
    return Table(
        title=f"{model}: the seed's probe",
        columns=("depth", "layer", "accuracy where it was trained"),
        rows=rows,
        caption=found.seed_definition,
    )


def _corrected_probes(model: str, found: Probes) -> Iterator[Table]:
    if not found.probes:
        return
    columns = (
        "features", "depth", "layer", "unseen", "unseen, no symbol", "less bag of tokens", "seen",
        "selectivity",
    )  # fmt: skip
    yield Table(
        title=f"{model}: probes on {len(found.prompts)} prompts",
        columns=columns,
        rows=(
            *map(_probe_row, found.probes),
            ("the commonest operation", "", "", found.most_frequent, None, None, None, None),
        ),
        caption="intervals are over wordings (an operation in a template), of which there are few: "
        "approximate; widened where the operations of a template are alike",
    )
    deepest = max(
        (probe for probe in found.probes if probe.features == RESIDUAL),
        key=lambda probe: probe.depth or 0.0,
        default=None,
    )
    if deepest is not None:
        yield _wordings(model, deepest)


def _probe_row(probe: Probe) -> tuple[Value, ...]:
    depth = "" if probe.depth is None else f"{probe.depth:.0%}"
    layer: Value = "" if probe.layer is None else probe.layer
    return (
        probe.features, depth, layer, probe.unseen, probe.without_symbol, probe.gain, probe.seen,
        probe.selectivity,
    )  # fmt: skip


def _wordings(model: str, probe: Probe) -> Table:
    scores = {(s.template, s.task): f"{s.right}/{s.n}" for s in probe.by_wording}
    templates = dict.fromkeys(template for template, _ in scores)
    return Table(
        title=f"{model}: {probe.features} at layer {probe.layer}, prompts recognised, unseen",
        columns=("template", *TASKS),
        rows=tuple((t, *(scores.get((t, task)) for task in TASKS)) for t in templates),
    )


def _accuracy(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, TaskAccuracy)
    if not each:
        return
    _, first = each[0]
    notes = [f"{model}: {note}" for model, found in each for note in found.warnings]
    tables = [
        Table(
            title="Problems solved",
            columns=("model", "seed's rule, seed's prompts", "whole number, seed's prompts",
                     "whole number, larger set"),
            rows=tuple((model, f.seed, f.seed_exact, f.accuracy) for model, f in each),
        ),
        Table(
            title="By operation, larger set",
            columns=("model", *TASKS),
            rows=tuple((model, *_by_task(found)) for model, found in each),
        ),
        *_pairs(each),
        *(_answers(model, found.seed_items) for model, found in each),
    ]  # fmt: skip
    yield Section(
        heading="Task accuracy",
        text=(
            f"Seed: {first.seed_definition}. Corrected: {first.definition}.",
            *dict.fromkeys(notes),
        ),
        tables=tuple(tables),
    )


def _by_task(found: TaskAccuracy) -> tuple[Value, ...]:
    shares = {share.task: share.accuracy for share in found.by_task}
    return tuple(shares.get(task) for task in TASKS)


def _pairs(each: Sequence[tuple[str, TaskAccuracy]]) -> Iterator[Table]:
    rows: list[tuple[Value, ...]] = []
    for (one, first), (other, second) in combinations(each, 2):
        found = paired_accuracy(first, second)
        paired = found.paired
        if paired is None:
            continue
        rows.append(
            (
                one,
                other,
                found.items,
                paired.difference,
                paired.only_first,
                paired.only_second,
                found.verdict,
            )
        )
    if rows:
        yield Table(
            title="Problem by problem",
            columns=(
                "model", "against", "problems", "difference", "only the first solved",
                "only the second solved", "verdict",
            ),
            rows=tuple(rows),
            caption="exact McNemar test; no difference found is no proof that there is none",
        )  # fmt: skip


def _answers(model: str, items: Sequence[Answered]) -> Table:
    return Table(
        title=f"{model}: answers to the seed's prompts",
        columns=("prompt", "right answer", "model wrote", "whole number", "seed's rule"),
        rows=tuple(
            (
                item.prompt.strip(), str(item.answer), item.text.strip(),
                "right" if item.exact else "wrong", "right" if item.contained else "wrong",
            )
            for item in items
        ),
    )  # fmt: skip


def _virtual_experts(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, VirtualExperts)
    if not each:
        return
    notes = [
        f"{model}: {note}"
        for model, found in each
        for note in (found.reason, *found.warnings)
        if note is not None
    ]
    table = Table(
        title="Prompts routed to their operation",
        columns=(
            "model", "layer", "accuracy", "no symbol", "log loss, nats", "router of tokens alone",
            "gain over it", "commonest operation",
        ),
        rows=tuple(
            (
                model, found.layer, found.accuracy, found.without_symbol, found.log_loss,
                found.bag_of_tokens, found.gain, found.most_frequent,
            )
            for model, found in each
        ),
        caption="log loss is 1.386 where nothing is known of four operations",
    )  # fmt: skip
    yield Section(
        heading="Virtual expert router",
        text=(
            f"A linear map of the last token's residual stream, {each[0][1].split}.",
            *dict.fromkeys(notes),
        ),
        tables=(table,),
    )
