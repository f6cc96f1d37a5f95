"""`moetui schema` against real documents, read by an independent reader of JSON Schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from moetui.cli import run
from moetui.cli.doctor_report import Check, Report
from moetui.cli.schema_documents import documents, schema
from moetui.suites import result_json
from moetui.suites.comparison import compare
from moetui.trace import Snapshot, to_json, trace_document
from moetui.tui.export import pane_json, screen_json
from moetui.tui.layout import ORDER
from moetui.tui.moment import Moment
from moetui.tui.panes import PANES
from tests.builders import make_model_info, make_trace
from tests.suites.sample import HOSTILE, make_result
from tests.tui.test_panes_common import MOMENTS

PANE = {pane.pane_id: pane for pane in PANES}


def validate(name: str, document: bytes) -> Any:
    """The document, once it has been found valid."""
    told = schema(name)
    Draft202012Validator.check_schema(told)
    decoded = json.loads(document)
    Draft202012Validator(told).validate(decoded)
    return decoded


@pytest.mark.parametrize("name", [*documents(), None])
def test_every_schema_is_one(name: str | None) -> None:
    Draft202012Validator.check_schema(schema(name))


def test_a_result_fits_its_schema_and_one_with_a_part_missing_does_not() -> None:
    document = validate("result", result_json(make_result(HOSTILE)))
    for part in ("measures", "separation", "verdicts", "parameters", "seed"):
        cut = {name: value for name, value in document.items() if name != part}
        with pytest.raises(ValidationError, match=part):
            Draft202012Validator(schema("result")).validate(cut)
    document["measures"][0]["statistic"]["value"] = "0.5"
    with pytest.raises(ValidationError):
        Draft202012Validator(schema("result")).validate(document)


def test_the_result_of_each_analysis_has_its_own_schema() -> None:
    found = [cell for cell in json.loads(result_json(make_result()))["cells"] if cell["result"]]
    assert {cell["result"]["type"] for cell in found} <= documents().keys()
    for cell in found:
        validate(cell["result"]["type"], json.dumps(cell["result"]).encode())


def test_a_comparison_fits_its_schema() -> None:
    second = make_result("other", seed=2, null=False)
    validate("comparison", to_json(compare(make_result(), second, names=("a", "b"))))


@pytest.mark.parametrize("options", [{}, {"moe_layers": ()}, {"with_parts": False}])
def test_a_trace_fits_its_schema(options: dict[str, Any]) -> None:
    validate("trace", to_json(trace_document(make_trace(**options))))


@pytest.mark.parametrize("moment", list(MOMENTS))
@pytest.mark.parametrize("name", ORDER)
def test_what_a_pane_exports_fits_its_schema(name: str, moment: str) -> None:
    shown = MOMENTS[moment]
    view = PANE[name]().view_of(shown) if name != "cold" else _cold(shown)
    document = validate(f"pane-{name}", pane_json(shown, name, view))
    assert (document["view"] is None) == (view is None)


def _cold(shown: Moment) -> Any:
    from moetui.analyses.cold_experts import cold_experts

    return cold_experts(shown.runs, intervals=False)


def test_a_screen_fits_its_schema_and_another_pane_s_view_does_not() -> None:
    shown = MOMENTS["moe"]
    views = {name: PANE[name]().view_of(shown) for name in ORDER if name != "cold"}
    document = validate("screen", screen_json(shown, {**views, "cold": _cold(shown)}))
    document["panes"]["map"] = document["panes"]["detail"]
    with pytest.raises(ValidationError):
        Draft202012Validator(schema("screen")).validate(document)
    empty = Moment(Snapshot(model=make_model_info()))
    validate("screen", screen_json(empty, dict.fromkeys(ORDER)))


def test_the_report_of_the_doctor_fits_its_schema() -> None:
    check = Check(name="terminal", status="ok", found="tty", advice=None)
    validate("doctor", to_json(Report(moetui="0.1.0", works=True, checks=(check,))))


def test_the_list_of_models_fits_its_schema(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["models", "--format", "json"]) == 0
    validate("models", capfdbinary.readouterr().out)


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "result"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("result")
    assert run(["schema"]) == 0
    whole = json.loads(capsys.readouterr().out)
    Draft202012Validator(whole).validate(json.loads(result_json(make_result())))
    assert run(["schema", "--list"]) == 0
    assert capsys.readouterr().out.split() == list(documents())


def test_an_unknown_document_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "reslt"]) == 2
    assert "did you mean result?" in capsys.readouterr().err
