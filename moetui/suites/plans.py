"""Plans that a user can act on, collected from results into one document.

An analysis that leaves plans is named in `SOURCES` with how to get at them; its kind of plan
joins the union `Plan`, told apart by its tag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from moetui.analyses.offload import OffloadPlan
from moetui.analyses.pruning_plan import CLAIM, RECOMMENDED, SAFE, PruningPlan, PruningPlans
from moetui.analyses.routed import RoutingRead
from moetui.analyses.task_aware import TaskAware
from moetui.errors import RunFailedError, UsageError
from moetui.suites.moe_dynamics.routing import CALIBRATION, ROUTING
from moetui.suites.plan import Suite
from moetui.suites.results import ModelRecord, SuiteResult
from moetui.trace import to_json
from moetui.trace.file import write_atomically

SCHEMA_VERSION = 1

Plan = PruningPlan | OffloadPlan


def _pruning(found: PruningPlans) -> Sequence[Plan]:
    return found.plans


def _offload(found: TaskAware) -> Sequence[Plan]:
    return () if found.plan is None else (found.plan,)


# Name of an analysis -> the plans in its result.
SOURCES: Mapping[str, Callable[[Any], Sequence[Plan]]] = {
    "pruning_plans": _pruning,
    "task_aware": _offload,
}


class ModelPlans(msgspec.Struct, frozen=True, kw_only=True):
    """Plans for one model. digest: identifies the checkpoint that they are for; suite: the run
    that measured them; seed: of its random draws. chosen_on, judged_on: the documents that decided
    the plans, and the others that they were measured on, with the digest of their texts."""

    model: str
    digest: str
    architecture: str
    suite: str
    seed: int
    chosen_on: RoutingRead | None
    judged_on: RoutingRead | None
    plans: tuple[Plan, ...]


class PlanDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `moetui batch --export-plan` writes. claim: what may not be read into it; terms: what
    words in it mean."""

    schema_version: int
    claim: str
    terms: dict[str, str]
    versions: dict[str, str]
    models: tuple[ModelPlans, ...]


def require_plans(suites: Sequence[Suite]) -> None:
    """Raises UsageError where none of the suites makes plans."""
    if any(analysis.name in SOURCES for suite in suites for analysis in suite.analyses):
        return
    names = ", ".join(suite.name for suite in suites)
    raise UsageError(
        f"--export-plan: {names} makes no plans",
        "plans come from cold_experts, task_aware and moe_dynamics",
    )


def plan_document(results: Sequence[SuiteResult]) -> PlanDocument:
    """The plans of all trained models in `results`.

    Raises RunFailedError where there are none, with the reason where one is known.
    """
    found = tuple(plans for result in results for plans in _of(result))
    if not found:
        raise RunFailedError(
            f"there is no plan to export: {_reason(results)}",
            "the results were written all the same",
        )
    return PlanDocument(
        schema_version=SCHEMA_VERSION,
        claim=CLAIM,
        terms={"safe": SAFE, "recommended": RECOMMENDED},
        versions=results[0].versions,
        models=found,
    )


def write_plans(results: Sequence[SuiteResult], path: Path) -> None:
    """Write the plans of `results` to `path`, whole or not at all.

    Raises RunFailedError where there are none, UsageError where the folder cannot be made.
    """
    document = to_json(plan_document(results), indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {path.parent}: {error.strerror}", "choose another folder"
        ) from error
    write_atomically(path, document)


def _of(result: SuiteResult) -> Iterator[ModelPlans]:
    for record in result.models:
        plans = tuple(
            plan
            for cell in result.cells
            if cell.model == record.name and cell.analysis in SOURCES and cell.result is not None
            for plan in SOURCES[cell.analysis](cell.result)
        )
        if plans and record.null_of is None and record.info is not None:
            yield ModelPlans(
                model=record.name,
                digest=record.info.digest,
                architecture=record.info.architecture,
                suite=result.suite,
                seed=result.seed,
                chosen_on=_documents(result, record.name, CALIBRATION),
                judged_on=_documents(result, record.name, ROUTING),
                plans=plans,
            )


def _documents(result: SuiteResult, model: str, analysis: str) -> RoutingRead | None:
    found = (c.result for c in result.cells if (c.model, c.analysis) == (model, analysis))
    return next((one for one in found if isinstance(one, RoutingRead)), None)


def _reason(results: Sequence[SuiteResult]) -> str:
    """Why, by the first analysis that should have made one."""
    for result in results:
        nulls = {record.name for record in result.models if _is_null(record)}
        for cell in result.cells:
            if cell.analysis in SOURCES and cell.model not in nulls:
                return cell.reason or "every rule drops nobody"
    return "no suite that makes plans has a result"


def _is_null(record: ModelRecord) -> bool:
    return record.null_of is not None
