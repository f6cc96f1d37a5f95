"""Two results side by side: the difference of their numbers, and what makes it worth nothing."""

from __future__ import annotations

import math

import msgspec
import pytest

from moetui.errors import UsageError
from moetui.stats import Statistic
from moetui.suites.comparison import Comparison, compare, partners, sections
from moetui.suites.lines import text_of
from moetui.suites.results import CellResult, Measure, ModelRecord, SuiteResult
from tests.builders import make_model_info
from tests.suites.sample import NULL_SHARE, RATIO_NAME, SHARE, SHARE_NAME, make_result

NAMES = ("a.json", "b.json")


def other(**changes: object) -> SuiteResult:
    """Another model's result: its share is 0.31 [0.29, 0.33]."""
    model = ModelRecord(name="other", info=make_model_info(name="other", digest="9"), failure=None)
    found = Measure(model="other", label="corrected", name=SHARE_NAME, statistic=NULL_SHARE)
    base = make_result(null=False)
    fields = {"models": (model,), "measures": (found,), **changes}
    return msgspec.structs.replace(base, **fields)


def side_by_side(first: SuiteResult, second: SuiteResult) -> Comparison:
    return compare(first, second, names=NAMES)


def test_the_difference_has_the_interval_of_two_independent_estimates() -> None:
    pair = side_by_side(make_result(null=False), other()).measures[0]
    assert (pair.first, pair.second) == (SHARE, NULL_SHARE)
    found = pair.difference
    assert found.value == pytest.approx(0.5245 - 0.31)
    # MOVER by hand: d − √((a − l)² + (u' − b)²), d + √((u − a)² + (b − l')²).
    assert found.ci_low == pytest.approx(0.2145 - math.hypot(0.5245 - 0.5171, 0.33 - 0.31))
    assert found.ci_high == pytest.approx(0.2145 + math.hypot(0.5315 - 0.5245, 0.31 - 0.29))
    assert pair.verdict == "differ"


def test_few_prompts_are_compared_one_by_one() -> None:
    ratio = make_result(null=False).measures[0]
    lower = msgspec.structs.replace(
        ratio,
        model="other",
        statistic=msgspec.structs.replace(ratio.statistic, value=0.8),
        units=tuple(unit - 0.1 for unit in ratio.units or ()),
    )
    pair = side_by_side(make_result(null=False), other(measures=(lower,))).measures[0]
    assert pair.name == RATIO_NAME and pair.difference.ci_low is None
    # All nine pairs lie on one side: 2 of 2⁹ sign patterns are as far out.
    assert pair.difference.p == pytest.approx(2 / 2**9)
    assert pair.verdict == "differ"


def test_without_interval_and_prompts_there_is_no_verdict() -> None:
    bare = Measure(
        model="other", label="corrected", name=SHARE_NAME, statistic=Statistic(value=0.1)
    )
    pair = side_by_side(make_result(null=False), other(measures=(bare,))).measures[0]
    assert pair.verdict == "not comparable" and pair.difference.value == pytest.approx(0.4245)


def test_measures_of_one_result_only_are_listed_not_dropped() -> None:
    found = side_by_side(make_result(null=False), other())
    assert [(one.of, one.measure.name) for one in found.unpaired] == [
        ("first", RATIO_NAME), ("first", "distance"),
    ]  # fmt: skip
    text = text_of(sections(found), 100)
    assert RATIO_NAME in text and "In one only" in text


def test_models_are_paired_by_name_and_single_ones_whatever_they_are_called() -> None:
    assert partners(make_result(), other()) == {"demo": "other"}
    assert partners(make_result(), make_result()) == {
        "demo": "demo", "demo, random weights": "demo, random weights",
    }  # fmt: skip
    assert partners(make_result(), make_result("z")) == {
        "demo": "z", "demo, random weights": "z, random weights",
    }  # fmt: skip


def test_other_suites_are_refused() -> None:
    with pytest.raises(UsageError, match="different suites: attention_router and x"):
        side_by_side(make_result(), make_result(suite="x"))


def test_other_prompts_and_other_documents_are_warned_of() -> None:
    changed = [
        msgspec.structs.replace(
            cell, result=msgspec.structs.replace(cell.result, documents_digest="d2")
        )
        if cell.analysis == "corpus_decomposition"
        else cell
        for cell in make_result().cells
    ]
    found = side_by_side(make_result(), make_result(prompts_digest="p2", cells=tuple(changed)))
    assert "the prompts differ: a difference may be theirs" in found.warnings
    assert any("documents of corpus_decomposition differ" in w for w in found.warnings)
    assert {s.name for s in found.settings} == {
        "digest of the prompts", "documents of corpus_decomposition",
    }  # fmt: skip


def test_a_failure_in_one_is_warned_of() -> None:
    failed = CellResult(
        model="demo", analysis="decomposition", status="failed", reason="no memory", seconds=0.1,
        result=None,
    )  # fmt: skip
    found = side_by_side(make_result(cells=(failed,)), make_result())
    assert "first: decomposition of demo failed: no memory" in found.warnings


def test_parameters_seeds_and_versions_that_differ_are_listed_and_only_these() -> None:
    second = make_result(
        parameters={"layers": [1], "prompts": ["127 + 45 ="], "extra": True},
        seed=7,
        versions={"numpy": "2.5"},
    )
    found = side_by_side(make_result(), second)
    assert {s.name: (s.first, s.second) for s in found.settings} == {
        "parameter layers": ("[0,4]", "[1]"),
        "parameter extra": (None, "true"),
        "seed": ("0", "7"),
        "version of numpy": ("2.4.6", "2.5"),
    }


def test_equal_results_differ_in_nothing() -> None:
    found = side_by_side(make_result(), make_result())
    assert not found.settings and not found.unpaired
    assert not any(pair.verdict == "differ" for pair in found.measures)
    assert all(pair.difference.value == 0 for pair in found.measures)
    assert "Parameters, models, seeds and versions are the same." in text_of(sections(found), 100)


def test_the_text_shows_the_numbers_of_the_document() -> None:
    found = side_by_side(make_result(null=False), other())
    text = " ".join(text_of(sections(found), 110).split())
    for one in (found.measures[0].first, found.measures[0].second, found.measures[0].difference):
        assert f"{one.value:.3f} [{one.ci_low:.3f}, {one.ci_high:.3f}]" in text
