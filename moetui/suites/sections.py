"""A suite's result as sections: what was asked, what was found, and what speaks against it.

Every drawer (report, terminal, explorer) shows these and nothing else, so that all of them show
the same numbers. A suite adds sections of its own results in a module beside it, see `OWN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from moetui.analyses.sanity import Sanity
from moetui.suites import (
    against_null,
    anatomy_sections,
    attention_router_sections,
    documents_sections,
    moe_routing_correlation_sections,
    shortfalls,
    terms,
)
from moetui.suites.moe_dynamics import (
    attention_routing_sections,
    circuits_sections,
    cold_experts_sections,
    context_attention_routing_sections,
    generation_sections,
    interference_sections,
    manipulation_sections,
    merging_sections,
    task_aware_sections,
)
from moetui.suites.moe_routing_correlation_tasks_sections import task_checks
from moetui.suites.names import studied
from moetui.suites.results import (
    Measure,
    ModelRecord,
    SuiteResult,
    measure_name,
    results_of,
)
from moetui.suites.tables import Section, Table, Value
from moetui.suites.verdict_sections import verdicts
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


# The longest value of a parameter that stands in one row.
_LONG = 72

# A suite that is not here has the general sections only.
OWN: Mapping[str, Own] = {
    "anatomy": Own(anatomy_sections.sections),
    "attention_router": Own(attention_router_sections.sections),
    "cold_experts": Own(cold_experts_sections.sections),
    "merging": Own(merging_sections.sections),
    "manipulation": Own(manipulation_sections.sections),
    "moe_routing_correlation": Own(moe_routing_correlation_sections.sections, checks=task_checks),
    "interference": Own(interference_sections.sections),
    "context_attention_routing": Own(context_attention_routing_sections.sections),
    "attention_routing": Own(attention_routing_sections.sections),
    "task_aware": Own(task_aware_sections.sections),
    "circuits": Own(circuits_sections.sections),
    "generation": Own(generation_sections.sections),
}


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """Everything, in the order in which a reviewer asks."""
    own = _own(result, null=False)
    return (
        question(result),
        *verdicts(result),
        measures(result),
        *against_null.sections(result),
        *own,
        *published(result),
        sanity(result),
        *shortfalls.sections(result),
        *_own_of_nulls(result, own),
        terms.section(result.suite),
        provenance(result),
    )


def _own(result: SuiteResult, *, null: bool) -> tuple[Section, ...]:
    """What the suite shows of the trained models, or of the null models."""
    models = tuple(one for one in result.models if (one.null_of is not None) == null)
    names = {record.name for record in models}
    cells = tuple(cell for cell in result.cells if cell.model in names)
    if not cells:
        return ()
    found = msgspec.structs.replace(result, models=models, cells=cells)
    own = (OWN[name].sections for name in studied(result.suite) if name in OWN)
    return (
        *documents_sections.sections(found),
        *(section for one in own for section in one(found)),
    )


def _own_of_nulls(result: SuiteResult, own: tuple[Section, ...]) -> Iterator[Section]:
    """The same of random weights, at the end: the comparison with them stands before."""
    said = {text for section in own for text in section.text}
    for section in _own(result, null=True):
        yield msgspec.structs.replace(
            section,
            heading=f"Random weights: {section.heading}",
            text=tuple(text for text in section.text if text not in said),
        )


def question(result: SuiteResult) -> Section:
    """What was asked, and of which models."""
    rows = tuple(_model_row(record) for record in result.models)
    columns = (
        "model", "architecture", "layers", "experts", "top-k", "router bits", "computed in",
        "digest",
    )  # fmt: skip
    return Section(
        heading="Question",
        text=(result.question, f"Words and signs are explained under “{terms.HEADING}”."),
        tables=(Table(title="Models", columns=columns, rows=rows),),
    )


def measures(result: SuiteResult) -> Section:
    """The headline numbers that no verdict rests on (those stand with it), for each trained model
    and question; those of null models stand beside them where the two are compared."""
    shown = {
        (of.model, of.label, measure_name(found.topic, of.name))
        for found in result.verdicts
        for verdict in (found.seed, found.corrected)
        for of in verdict.evidence
    }
    topics = tuple(found.topic for found in result.verdicts if found.topic is not None)
    tables: dict[str, list[tuple[Value, ...]]] = {}
    for record in result.models:
        for measure in result.measures:
            own = measure.model == record.name and record.null_of is None
            if own and (measure.model, measure.label, measure.name) not in shown:
                of, name = _asked_by(measure.name, topics)
                title = _titled(record) if of is None else f"{_titled(record)}: {of}"
                tables.setdefault(title, []).append((measure.label, name, measure.statistic))
    if tables:
        text = "Numbers that the verdicts rest on stand with them; these are the others."
    else:
        text = "All stand with the verdicts." if result.measures else "Nothing was measured."
    return Section(
        heading="Measures",
        text=(text,),
        tables=tuple(
            Table(title=title, columns=("definition", "measure", "value"), rows=tuple(rows))
            for title, rows in tables.items()
        ),
    )


def _asked_by(name: str, topics: Sequence[str]) -> tuple[str | None, str]:
    """The question that a measure belongs to, where a suite has several, and its name there."""
    for topic in topics:
        if name.startswith(before := measure_name(topic, "")):
            return topic, name.removeprefix(before)
    return None, name


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
    own = [OWN[name].checks for name in studied(result.suite) if name in OWN]
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
        for more in own:
            checks += () if more is None else more(result, record.name)
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


def provenance(result: SuiteResult) -> Section:
    """Everything that is needed to get the same numbers again."""
    parameters = tuple(row for item in result.parameters.items() for row in _parameter_rows(*item))
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
    if record.null_of is None or record.name.startswith(record.null_of):
        return record.name
    return f"{record.name} (null of {record.null_of})"


def _statistic(measure: Measure | None) -> Value:
    return None if measure is None else measure.statistic


def _parameter_rows(name: str, value: object) -> Iterator[tuple[Value, ...]]:
    """A parameter in a row, or where that is long a row for each of its parts."""
    if len(_json(value)) <= _LONG or not isinstance(value, list | dict):
        yield name, _json(value)
        return
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield f"{name}[{_json(key)}]", _json(part)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
