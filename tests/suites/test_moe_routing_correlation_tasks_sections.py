"""Probes, answers and routes as tables: the numbers of the result, and all of them."""

from __future__ import annotations

import functools

import pytest

from moetui.analyses.probes import Probes
from moetui.analyses.task_accuracy import TaskAccuracy
from moetui.suites.moe_routing_correlation_tasks import (
    AccuracyAnalysis,
    ProbeAnalysis,
    VirtualExpertAnalysis,
)
from moetui.suites.moe_routing_correlation_tasks_sections import task_checks, task_sections
from moetui.suites.results import CellResult, ModelRecord, SuiteResult
from moetui.suites.tables import Table
from tests.builders import make_model_info
from tests.suites.sample import make_result
from tests.suites.test_moe_routing_correlation_tasks import model, run

NAMES = ("one", "other")


@functools.cache
def cells() -> tuple[CellResult, ...]:
    left, probes = run(ProbeAnalysis(pairs=4), model())
    _, routes = run(VirtualExpertAnalysis(), model(), {"probes": left})
    _, answers = run(AccuracyAnalysis(per_task=10), model())
    return tuple(
        CellResult(model=name, analysis="any", status="done", reason=None, seconds=0.0,
                   result=outcome.result)
        for name in NAMES
        for outcome in (probes, answers, routes)
    )  # fmt: skip


def result(*kinds: type) -> SuiteResult:
    """With the results of `kinds` only, if any are given."""
    records = tuple(
        ModelRecord(name=name, info=make_model_info(name=name), failure=None) for name in NAMES
    )
    chosen = tuple(cell for cell in cells() if not kinds or isinstance(cell.result, kinds))
    return make_result(models=records, cells=chosen)


def tables() -> dict[str, Table]:
    return {table.title: table for section in task_sections(result()) for table in section.tables}


def test_every_row_has_a_value_for_every_column() -> None:
    for table in tables().values():
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.title


def test_every_probe_stands_in_its_models_table() -> None:
    found = next(c.result for c in cells() if isinstance(c.result, Probes))
    for name in NAMES:
        rows = tables()[f"{name}: probes on 112 prompts"].rows
        assert [row[0] for row in rows[:-1]] == [probe.features for probe in found.probes]
        assert [row[3] for row in rows[:-1]] == [probe.unseen for probe in found.probes]
        assert rows[-1][3] == found.most_frequent
        of_seed = tables()[f"{name}: the seed's probe"].rows
        assert [row[:2] for row in of_seed] == [("25%", 1), ("50%", 2)]


def test_recognised_prompts_are_counted_by_template_and_operation() -> None:
    rows = tables()["one: residual stream at layer 2, prompts recognised, unseen"].rows
    assert len(rows) == 7
    shown = [cell for row in rows for cell in row[1:]]
    found = next(c.result for c in cells() if isinstance(c.result, Probes))
    probe = found.probe("residual stream", 0.5)
    assert probe is not None
    right = sum(int(str(cell).split("/")[0]) for cell in shown)
    assert right == round((probe.unseen.value or 0.0) * 112)
    assert {str(cell).split("/")[1] for cell in shown} == {"4"}


def test_two_models_are_compared_problem_by_problem() -> None:
    (row,) = tables()["Problem by problem"].rows
    assert row[:3] == ("one", "other", 40) and row[4:] == (0, 0, "no difference found")
    answers = tables()["one: answers to the seed's prompts"].rows
    assert len(answers) == 12 and answers[0][:3] == ("5 + 3 =", "8", "8")
    by_rule = {row[0]: row[3:] for row in answers}
    assert by_rule["12 + 7 ="] == ("wrong", "wrong") and by_rule["5 + 3 ="] == ("right", "right")


def test_only_what_was_measured_has_a_section() -> None:
    assert task_sections(make_result()) == ()
    (only,) = task_sections(result(TaskAccuracy))
    assert only.heading == "Task accuracy"


def test_sizes_below_the_minimum_are_said() -> None:
    probes = next(s for s in task_sections(result()) if s.heading == "Probes of the operation")
    assert any("28 items per class" in text for text in probes.text)
    assert any("dense" in text for text in probes.text)


@pytest.mark.parametrize("name", NAMES)
def test_what_should_find_nothing_is_among_the_checks(name: str) -> None:
    checks = dict(task_checks(result(), name))
    found = next(c.result for c in cells() if isinstance(c.result, Probes))
    embedding = found.probe("embedding (layer 0)")
    assert embedding is not None
    key = "probe of the embedding (layer 0), unseen words: chance expected"
    assert checks[key] == embedding.unseen and embedding.unseen.value == 0.25
    assert checks["probes that did not converge"] == f"0 of {sum(p.fits for p in found.probes)}"
    assert task_checks(make_result(), "demo") == ()
