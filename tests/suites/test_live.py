"""A suite on the model that is open already: watched, stopped, taken up, written as a batch run."""

import json
from pathlib import Path

import pytest

from moetui.errors import ModelError, UsageError
from moetui.suites import live, read_result, run_prepared
from moetui.suites.live import OpenModel, SuiteRequest, suite_study
from moetui.suites.models import Loaded, ModelRef
from tests.suites.test_runner import timeless
from tests.suites.toy import ToyModel, ToySuite

TEXTS = ("one", "two", "three", "four", "five")


class StoppedError(BaseException):
    pass


class Watcher:
    """Keeps what is shown; stops the run at the `stop`-th cell."""

    def __init__(self, stop=None):
        self.shown, self._stop = [], stop

    def show(self, finding):
        self.shown.append(finding)
        self.go_on()

    def go_on(self):
        if self._stop is not None and self.shown and self.shown[-1].done >= self._stop:
            raise StoppedError


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    def suite(name, parameters, *, preset):
        assert name == "toy"
        return ToySuite(parameters["models"], TEXTS)

    monkeypatch.setattr(live, "suite", suite)


def request(folder, **changes):
    return SuiteRequest(**{"name": "toy", "model": "demo", "folder": Path(folder), **changes})


def test_the_result_and_its_file_are_those_of_a_batch_run(tmp_path):
    watcher = Watcher()
    suite_study(request(tmp_path))(ToyModel("demo"), watcher)
    last = watcher.shown[-1]
    own = OpenModel(ToyModel("demo"), lambda: None)
    assert timeless(last.result) == timeless(run_prepared(ToySuite(["demo"], TEXTS), source=own))
    assert timeless(read_result(last.file)) == timeless(last.result)
    assert last.file.parent == tmp_path and last.file.name.startswith("toy_2")
    assert json.loads(last.file.read_bytes())["suite"] == "toy"


def test_cells_and_tokens_are_counted_as_the_plan_has_them(tmp_path):
    watcher = Watcher()
    suite_study(request(tmp_path))(ToyModel("demo"), watcher)
    # Three parts and their statistics; one part and its statistics.
    assert {run.cells for run in watcher.shown[1:]} == {6}
    done = [run.done for run in watcher.shown]
    assert done == sorted(done) and done[-1] == 6
    tokens = [run.tokens_done for run in watcher.shown]
    assert tokens == sorted(tokens)
    assert tokens[-1] == watcher.shown[-1].tokens == sum(map(len, TEXTS))
    assert [c.status for c in watcher.shown[-1].ended] == ["done", "done"]


def test_a_stopped_run_goes_on_from_its_finished_cells(tmp_path):
    stopped, model = Watcher(stop=2), ToyModel("demo")
    with pytest.raises(StoppedError):
        suite_study(request(tmp_path))(model, stopped)
    assert tuple(model.read) == TEXTS[:4] and not list(tmp_path.glob("*.json"))
    model.read.clear()
    again = Watcher()
    suite_study(request(tmp_path))(model, again)
    assert tuple(model.read) == TEXTS[4:] and again.shown[-1].reused == 2
    whole = Watcher()
    suite_study(request(tmp_path / "elsewhere"))(model, whole)
    assert timeless(again.shown[-1].result) == timeless(whole.shown[-1].result)


def test_without_resume_all_is_done_again(tmp_path):
    model = ToyModel("demo")
    for _ in range(2):
        suite_study(request(tmp_path, resume=False))(model, Watcher())
    assert tuple(model.read) == TEXTS * 2


def test_an_analysis_that_fails_leaves_nothing_to_do(tmp_path):
    watcher = Watcher()
    broken = ToyModel("demo", broken={"one": RuntimeError("boom")})
    with pytest.raises(Exception, match="boom"):
        suite_study(request(tmp_path))(broken, watcher)
    assert watcher.shown[-1].done == watcher.shown[-1].cells
    assert {c.status for c in watcher.shown[-1].ended} == {"failed"}


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    model = ToyModel("demo")
    with pytest.raises(UsageError) as caught:
        suite_study(request(tmp_path / "file" / "results"))(model, Watcher())
    assert "export_dir" in caught.value.hint and not model.read


def test_the_open_model_is_not_loaded_again(monkeypatch):
    monkeypatch.setattr(Loaded, "open", lambda self, ref: f"loaded {ref.label}")
    model = ToyModel("demo")
    source = OpenModel(model, lambda: None)
    assert source.open(ModelRef("demo")) is model
    assert source.open(ModelRef("demo-dense")) == "loaded demo-dense"
    assert source.open(ModelRef("demo", "own", 3)) == "loaded demo (random weights)"


def test_a_model_that_does_not_fit_beside_it_names_the_way_out(monkeypatch):
    def full(self, ref):
        raise ModelError("demo does not fit into memory", "close other programs")

    monkeypatch.setattr(Loaded, "open", full)
    with pytest.raises(ModelError) as caught:
        OpenModel(ToyModel("demo"), lambda: None).open(ModelRef("demo", "own"))
    assert caught.value.hint.startswith("close other programs; `moetui batch`")


def test_what_is_loaded_beside_it_can_be_stopped_too():
    stop = []

    def go_on():
        if stop:
            raise StoppedError

    random = OpenModel(ToyModel("demo"), go_on).open(ModelRef("demo", "own"))
    assert len(random.nll("5 + 3 =")) > 0
    stop.append(True)
    with pytest.raises(StoppedError):
        random.nll("5 + 3 =")
    with pytest.raises(StoppedError):
        OpenModel(ToyModel("demo"), go_on).open(ModelRef("demo", "own"))
