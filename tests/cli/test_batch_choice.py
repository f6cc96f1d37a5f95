"""Which suites, studies, plans and parameters a command line means."""

from typing import Annotated

import msgspec
import pytest

from moetui.cli import run as moetui_run
from moetui.cli.batch_parameters import parameters
from moetui.errors import UsageError
from moetui.suites import suite
from moetui.suites.names import NAMES, STUDIES, WHOLE, expanded
from moetui.suites.parameters import described, names, overlaid, parameters_of
from moetui.suites.report import report
from tests.suites.sample import make_result

Count = Annotated[int, msgspec.Meta(ge=0, description="how many")]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pairs: Count = 3


class Whole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: tuple[str, ...] = ("demo",)
    seconds: Count = 1
    part: Part = msgspec.field(default_factory=Part)


def test_all_is_the_three_suites_and_a_published_name_is_its_study():
    assert expanded(["all"]) == WHOLE
    assert expanded(["expert-circuits", "cold-experts"]) == ("circuits", "cold_experts")
    assert expanded(["moe_dynamics", "all"])[0] == "moe_dynamics" and len(
        expanded(["moe_dynamics", "all"])
    ) == len(WHOLE)


def test_a_parameter_of_a_part_is_described_and_set_under_a_dotted_name():
    set_to = parameters_of(Whole, {"part": {"pairs": 7}}, "whole")
    assert names(set_to) == ("models", "seconds", "part.pairs")
    last = described(set_to)[-1]
    assert (last.value, last.default, last.description) == (7, 3, "how many")


def test_what_is_given_goes_before_the_plan_parameter_by_parameter():
    plan = {"seconds": 5, "part": {"pairs": 1, "others": 2}}
    assert overlaid(plan, {"part": {"pairs": 9}}) == {
        "seconds": 5, "part": {"pairs": 9, "others": 2},
    }  # fmt: skip


def test_a_dotted_parameter_reaches_its_part_and_an_unknown_one_is_refused(monkeypatch):
    class Fake:
        parameters = Whole()

    monkeypatch.setattr("moetui.suites.suite", lambda name: Fake())
    given = parameters(("whole",), (), ("part.pairs=4", "whole.seconds=2"), None)
    assert given == {"whole": {"part": {"pairs": 4}, "seconds": 2}}
    with pytest.raises(UsageError, match="'prat' is not among") as refused:
        parameters(("whole",), (), ("prat.pairs=4",), None)
    assert "part.pairs" in refused.value.hint


def test_an_unknown_parameter_of_a_part_is_refused_with_the_nearest_one(tmp_path, capfd):
    with pytest.raises(UsageError, match=r"no parameter 'part\.pair'") as refused:
        parameters_of(Whole, {"part": {"pair": 4}}, "whole")
    assert "'part.pairs'" in refused.value.hint
    path = tmp_path / "c.yaml"
    path.write_text("moe_dynamics:\n  merging:\n    threshold: 0.9\n    treshold: 0.9\n")
    assert moetui_run(["batch", "moe_dynamics", "--config", str(path), "--dry-run"]) == 2
    said = capfd.readouterr().err
    assert "line 4: moe_dynamics has no parameter 'merging.treshold'" in said
    assert "'merging.threshold'" in said


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", ["quick", "full"])
def test_every_suite_has_a_quick_and_a_full_plan(name, preset):
    assert names(suite(name, preset=preset).parameters) == names(suite(name).parameters)


@pytest.mark.parametrize("name", WHOLE)
def test_a_quick_plan_is_smaller_than_the_default_and_a_full_one_larger(name):
    def tokens(preset):
        cells = [
            part.tokens or 0
            for analysis in suite(name, preset=preset).analyses
            for part in analysis.parts(seed=0)
        ]
        return sum(cells)

    assert tokens("quick") < tokens(None) / 2 < tokens("full") / 2


def test_a_study_is_picked_from_moe_dynamics_only(capfd):
    assert moetui_run(["batch", "attention_router", "--analysis", "circuits"]) == 2
    assert "moe_dynamics" in capfd.readouterr().err
    with pytest.raises(UsageError, match="no analysis 'nonsense'"):
        suite("moe_dynamics", analyses=["nonsense"])


def test_help_names_every_suite(capfd):
    assert moetui_run(["batch", "--help"]) == 0
    told = " ".join(capfd.readouterr().out.split())
    assert all(name in told for name in (*NAMES, "all"))


def test_several_results_make_one_report_with_every_verdict_first():
    first, second = make_result(), make_result(suite="another")
    text = report([first, second], {"third": "it broke"})
    overview, _, rest = text.partition("\n# ")
    assert "attention\\_router" in overview or "attention_router" in overview
    assert "another" in overview and "third failed: it broke" in overview
    assert rest.count("## How it was made") == 2


def test_every_study_can_be_made_alone_and_within_the_suite():
    for name in STUDIES:
        alone = suite(name)
        some = suite("moe_dynamics", analyses=[name])
        own = {analysis.name for analysis in alone.analyses}
        assert own == {analysis.name for analysis in some.analyses}
        assert alone.question and names(alone.parameters)
        assert {f"{name}.{one}" for one in set(names(alone.parameters))} & set(
            names(some.parameters)
        )
