"""A suite's result as sections: what was asked, what was found, and what speaks against it.

Every drawer (report, terminal, explorer) shows these and nothing else, so that all of them show
the same numbers. A suite adds sections of its own results in a module beside it, see `OWN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from moetui.analyses.sanity import Sanity
from moetui.suites import attention_router_sections, moe_routing_correlation_sections
from moetui.suites.moe_routing_correlation_tasks_sections import task_checks
from moetui.suites.results import (
    Measure,
    ModelRecord,
    NullVerdict,
    Separation,
    SuiteResult,
    Verdict,
    results_of,
)
from moetui.suites.tables import Section, Table, Value, estimate
from moetui.trace import ModelInfo

# What a check is called, and what came of it.
Checks = tuple[tuple[str, Value], ...]


class Own(NamedTuple):
    """What a suite shows of its own results.

    sections: of the whole result. checks: rows of the sanity table for one model, beside the
    checks that all suites make; None where there are no others.
    """

    sections: Callable[[SuiteResult], tuple[Section, ...]]
    checks: Callable[[SuiteResult, str], Checks] | None = None


# A suite that is not here has the general sections only.
OWN: Mapping[str, Own] = {
    "attention_router": Own(attention_router_sections.sections),
    "moe_routing_correlation": Own(moe_routing_correlation_sections.sections, checks=task_checks),
}


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """Everything, in the order in which a reviewer asks."""
    own = OWN[result.suite].sections(result) if result.suite in OWN else ()
    return (
        question(result),
        verdicts(result),
        measures(result),
        *separation(result),
        *own,
        *published(result),
        sanity(result),
        *failures(result),
        *caveats(result),
        provenance(result),
    )


def summary(result: SuiteResult) -> tuple[Section, ...]:
    """What a run ends with on a terminal: the answer and what speaks against it."""
    answers = verdicts(result)
    return (
        # What the verdicts rest on stands among the measures.
        Section(heading=answers.heading, text=answers.text),
        measures(result),
        *_separation_summary(result),
        *failures(result),
        *caveats(result),
    )


def _separation_summary(result: SuiteResult) -> Iterator[Section]:
    """What is not told apart from random weights, without the numbers."""
    for section in separation(result):
        told = tuple(text for text in section.text if not text.startswith("Told apart"))
        told = told or ("Every measure is told apart from the null model.",)
        yield Section(heading=section.heading, text=told)


def question(result: SuiteResult) -> Section:
    """What was asked, and of which models."""
    rows = tuple(_model_row(record) for record in result.models)
    columns = (
        "model", "architecture", "layers", "experts", "top-k", "router bits", "computed in",
        "digest",
    )  # fmt: skip
    return Section(
        heading="Question",
        text=(result.question,),
        tables=(Table(title="Models", columns=columns, rows=rows),),
    )


def verdicts(result: SuiteResult) -> Section:
    """The seed's verdict beside the corrected one, with rule, evidence and why they differ."""
    both = (result.verdict.seed, result.verdict.corrected)
    evidence = tuple(
        (verdict.label, measure.model, measure.name, measure.statistic)
        for verdict in both
        for measure in verdict.evidence
    )
    columns = ("rule", "model", "measure", "value")
    table = Table(title="What the verdicts rest on", columns=columns, rows=evidence)
    return Section(
        heading="Verdicts",
        text=(
            *map(_answer, both),
            f"Why they differ: {result.verdict.why_they_differ}",
            *map(_of_random_weights, result.null_verdicts),
        ),
        tables=(table,) if evidence else (),
    )


def _of_random_weights(found: NullVerdict) -> str:
    """The same rules on random weights: what they say there is no finding about training."""
    names = ", ".join(found.models)
    seed, corrected = found.verdict.seed, found.verdict.corrected
    return (
        f"The same rules on {names}: {seed.label} {seed.outcome}, "
        f"{corrected.label} {corrected.outcome}."
    )


def _answer(verdict: Verdict) -> str:
    """Whose rule, what it says, and the rule itself."""
    said = verdict.statement.removeprefix(f"{verdict.outcome}: ")
    label = f"{verdict.label[:1].upper()}{verdict.label[1:]}"
    return f"{label}: {verdict.outcome}: {said}. The rule: {verdict.rule}."


def measures(result: SuiteResult) -> Section:
    """The headline numbers, a table for each trained model, seed and corrected under one another;
    those of null models stand beside them where the two are compared."""
    tables = tuple(
        Table(
            title=_titled(record),
            columns=("definition", "measure", "value"),
            rows=tuple(
                (measure.label, measure.name, measure.statistic)
                for measure in result.measures
                if measure.model == record.name
            ),
        )
        for record in result.models
        if record.null_of is None
        and any(measure.model == record.name for measure in result.measures)
    )
    text = () if tables else ("Nothing was measured.",)
    return Section(heading="Measures", text=text, tables=tables)


def separation(result: SuiteResult) -> Iterator[Section]:
    """Which numbers of a trained model differ from those of the same model untrained."""
    if not result.separation:
        yield Section(
            heading="Against the null model",
            text=(
                "No null model was run (--null-model). Nothing here shows that training made any "
                "of these numbers: a model with random weights may show the same.",
            ),
        )
        return
    columns = (
        "definition", "measure", "verdict", "trained", "null model", "trained − null",
    )  # fmt: skip
    tables = tuple(
        Table(
            title=f"{model}, trained, against {null_model}",
            columns=columns,
            rows=tuple(_separation_row(s) for s in found),
        )
        for (model, null_model), found in _by_model(result.separation).items()
    )
    yield Section(
        heading="Against the null model",
        text=tuple(_separation_text(result.separation)),
        tables=tables,
    )


def _by_model(found: tuple[Separation, ...]) -> dict[tuple[str, str], list[Separation]]:
    grouped: dict[tuple[str, str], list[Separation]] = {}
    for one in found:
        grouped.setdefault((one.model, one.null_model), []).append(one)
    return grouped


def _separation_row(found: Separation) -> tuple[Value, ...]:
    why = f": {found.reason}" if found.reason else ""
    return (
        found.label, found.name, f"{found.verdict}{why}", estimate(found.trained),
        estimate(found.null), found.difference,
    )  # fmt: skip


def _separation_text(found: tuple[Separation, ...]) -> Iterator[str]:
    """What separates and what does not, in words: the second is what a reader must not miss."""
    yield (
        "Every measure is judged for itself at the 5 % level, in either direction: of twenty that "
        "tell nothing apart one will seem to."
    )
    said = {
        "does not separate": "Not told apart from",
        "inconclusive": "Not decided against",
        "separates": "Told apart from",
    }
    for (model, null_model), ones in _by_model(found).items():
        for verdict, words in said.items():
            names = [f"{s.name} ({s.label})" for s in ones if s.verdict == verdict]
            count = f"{len(names)} of {len(ones)} measures of {model}"
            if names and verdict == "separates":
                yield f"{words} {null_model}: {count}."
            elif names:
                yield f"{words} {null_model}: {count}: {'; '.join(names)}."


def published(result: SuiteResult) -> Iterator[Section]:
    """The seed's published numbers of real models, beside ours where a measure has that name."""
    if not result.published:
        return
    models = [record.name for record in result.models if record.null_of is None]
    ours = {(measure.model, measure.name): measure for measure in result.measures}
    rows = tuple(
        (
            known.model,
            known.measure,
            known.value,
            *(_statistic(ours.get((model, known.measure))) for model in models),
        )
        for known in result.published
    )
    columns = ("published for", "measure", "published value", *(f"here: {m}" for m in models))
    yield Section(
        heading="Published values",
        text=(
            "As published by the seed for real models; they were not measured here and have no "
            "interval. Other models need not give the same numbers.",
        ),
        tables=(Table(title="Published beside measured", columns=columns, rows=rows),),
    )


def sanity(result: SuiteResult) -> Section:
    """What must hold before any number here means something, of every model."""
    own = OWN.get(result.suite)
    rows: list[tuple[Value, ...]] = []
    layers: list[tuple[Value, ...]] = []
    for record in result.models:
        nulls = [other.name for other in result.models if other.null_of == record.name]
        checks = list(_reading_checks(record.info))
        if record.null_of is None:
            checks.append(("null model", ", ".join(nulls) or "not run"))
        for found in results_of(result, record.name, Sanity):
            checks += _sanity_checks(found)
            layers += [(record.name, *row) for row in _sanity_layers(found)]
        if own is not None and own.checks is not None:
            checks += own.checks(result, record.name)
        rows += [(record.name, check, outcome) for check, outcome in checks]
    tables = [Table(title="Checks", columns=("model", "check", "outcome"), rows=tuple(rows))]
    if layers:
        columns = (
            "model", "layer", "top-k reproduced by the model's own router", "shuffled tokens",
            "ties at the k-boundary",
        )  # fmt: skip
        tables.append(Table(title="Checks by layer", columns=columns, rows=tuple(layers)))
    told = [one.shuffled_definition for one in _all_sanity(result)]
    text = tuple(f"Shuffled tokens: {definition}." for definition in dict.fromkeys(told))
    return Section(heading="Sanity", text=text, tables=tuple(tables))


def _all_sanity(result: SuiteResult) -> list[Sanity]:
    return [one for r in result.models for one in results_of(result, r.name, Sanity)]


def _reading_checks(info: ModelInfo | None) -> Iterator[tuple[str, Value]]:
    """What the model's own self-test said when it was loaded."""
    if info is None:
        yield "model", "not loaded"
        return
    if info.is_moe or info.routing_error is not None:
        bits = "unknown" if info.router_bits is None else f"{info.router_bits} bits"
        name = "experts read are those that the model's own forward ran"
        yield name, info.routing_error or "yes"
        yield "router logits are the sum of their parts", info.decomposition_error or "yes"
        yield "router precision", bits
    else:
        yield "routers", "none: a dense model"
    yield "lens at the last layer is the model's output", info.lens_error or "yes"


def _sanity_checks(found: Sanity) -> Iterator[tuple[str, Value]]:
    """What the suite checked itself, on a few texts."""
    name = "logits with and without reading are the same, bit for bit"
    yield name, f"{found.same_logits} of {found.texts} texts"
    errors = [one.completeness for one in found.layers if one.completeness is not None]
    if errors:
        bound = f"bound {found.completeness_bound:.0e} in {found.dtype}"
        yield "completeness error, worst token", f"{max(errors):.1e} ({bound})"
    if found.first_layer_ratio is not None:
        yield "seed ratio at layer 0 (0 by construction)", f"{found.first_layer_ratio:.3g}"
    if found.first_layer_experts is not None:
        said = "yes" if found.first_layer_experts else "no"
        yield "experts add nothing to the logits of layer 0", said
    if found.reproduced_error is not None:
        yield "routers cannot be asked again", found.reproduced_error
    yield "checks that failed", "; ".join(found.failed) or "none"


def _sanity_layers(found: Sanity) -> Iterator[tuple[Value, ...]]:
    for one in found.layers:
        yield str(one.layer), one.reproduced, one.shuffled, one.ties


def failures(result: SuiteResult) -> Iterator[Section]:
    """What failed or stayed open, and why."""
    rows = tuple(
        (cell.model, cell.analysis, cell.status, cell.reason or "")
        for cell in result.cells
        if cell.status != "done"
    )
    if rows:
        columns = ("model", "analysis", "status", "reason")
        yield Section(
            heading="Failed or inconclusive",
            tables=(Table(title="Analyses without a full result", columns=columns, rows=rows),),
        )


def caveats(result: SuiteResult) -> Iterator[Section]:
    """What a reader must know before quoting."""
    if result.caveats:
        yield Section(heading="Caveats", text=tuple(dict.fromkeys(result.caveats)))


def provenance(result: SuiteResult) -> Section:
    """Everything that is needed to get the same numbers again."""
    parameters = tuple((name, _json(value)) for name, value in result.parameters.items())
    circumstances: dict[str, Value] = {
        "seed of all random draws": str(result.seed),
        "digest of the prompts": result.prompts_digest,
        "started": result.started,
        "finished": result.finished,
        **result.versions,
        **result.environment,
    }
    times = tuple((cell.model, cell.analysis, cell.status, cell.seconds) for cell in result.cells)
    return Section(
        heading="How it was made",
        tables=(
            Table(title="Parameters", columns=("parameter", "value"), rows=parameters),
            Table(
                title="Circumstances",
                columns=("what", "value"),
                rows=tuple(circumstances.items()),
            ),
            Table(title="Analyses", columns=("model", "analysis", "status", "seconds"), rows=times),
        ),
    )


def _model_row(record: ModelRecord) -> tuple[Value, ...]:
    info = record.info
    if info is None:
        return (_titled(record), f"not usable: {record.failure}", *[None] * 6)
    routed = (info.num_experts, info.top_k) if info.is_moe else (None, None)
    return (
        _titled(record), info.architecture, info.num_layers, *routed, info.router_bits,
        f"{info.dtype} on {info.backend}", info.digest[:12],
    )  # fmt: skip


def _titled(record: ModelRecord) -> str:
    return record.name if record.null_of is None else f"{record.name} (null of {record.null_of})"


def _statistic(measure: Measure | None) -> Value:
    return None if measure is None else measure.statistic


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
