"""How a plan of cells is run, kept, taken up again; on a suite that can be followed by hand."""

import gc
import weakref

import msgspec
import pytest

from moetui.errors import ModelError, MoetuiError, RunFailedError, UsageError
from moetui.suites import read_result, result_json, run_prepared, run_suite, suite, write_result
from moetui.suites.results import SuiteResult
from tests.suites.toy import ToyModel, ToyModels, ToySuite

TEXTS = ("one", "two", "three", "four", "five")
TOTAL = sum(ord(c) for text in TEXTS for c in text)


class Watcher:
    def __init__(self, interrupt_after=None):
        self.events, self.finished, self.reused = [], [], []
        self._left = interrupt_after

    def plan(self, cells):
        self.events.append(("plan", len(cells)))

    def start(self, cell):
        if self._left == 0:
            raise KeyboardInterrupt
        self.events.append(("start", cell.model, cell.analysis, cell.part))

    def step(self, done, total):
        self.events.append(("step", done, total))

    def finish(self, cell, *, reused):
        self.events.append(("finish", cell.model, cell.analysis, cell.part))
        (self.reused if reused else self.finished).append(cell.part)
        self._left = None if self._left is None else self._left - 1

    def ended(self, result):
        self.events.append(("ended", result.model, result.analysis, result.status))


def run(models, names=None, **options):
    source = models if isinstance(models, ToyModels) else ToyModels(**models)
    return run_prepared(ToySuite(names or list(source.models), TEXTS), source=source, **options)


def timeless(result):
    cells = tuple(msgspec.structs.replace(c, seconds=0.0) for c in result.cells)
    return result_json(msgspec.structs.replace(result, cells=cells, started="", finished=""))


def test_every_part_is_read_once_and_reduced_in_order():
    model = ToyModel("a")
    result = run({"a": model})
    assert [c.result.sampled for c in result.cells] == [TOTAL, TOTAL]
    assert tuple(model.read) == TEXTS


def test_a_model_that_fails_to_load_keeps_the_others_results():
    bad = ModelError("weights are damaged", "download it again")
    result = run({"a": ToyModel("a"), "b": bad, "c": ToyModel("c")})
    assert [c.status for c in result.cells] == ["done"] * 2 + ["failed"] * 2 + ["done"] * 2
    assert {c.model for c in result.failures} == {"b"}
    assert all("weights are damaged" in c.reason for c in result.failures)
    records = {r.name: r for r in result.models}
    assert records["b"].info is None and "damaged" in records["b"].failure
    assert records["c"].info.name == "c" and records["c"].failure is None


def test_a_defect_in_one_part_fails_its_analysis_and_those_that_need_it():
    result = run({"a": ToyModel("a", broken={"three": RuntimeError("boom")}), "b": ToyModel("b")})
    assert [c.status for c in result.cells] == ["failed", "failed", "done", "done"]
    assert result.cells[0].reason == "RuntimeError: boom"
    assert result.cells[1].reason.startswith("count failed, which this needs")
    assert result.models[0].failure is None


def test_a_model_that_the_question_does_not_fit_is_an_answer():
    result = run({"a": ToyModel("a", moe_layers=())})
    assert [c.status for c in result.cells] == ["inconclusive", "inconclusive"]
    assert result.cells[0].reason == "it has no routers" and not result.failures


def test_where_nothing_succeeds_the_first_cause_is_raised():
    with pytest.raises(ModelError, match="no model 'x'"):
        run(ToyModels(), ["x"])
    with pytest.raises(RunFailedError, match="nothing succeeded: ValueError: odd"):
        run({"a": ValueError("odd")})


def test_a_model_is_opened_once_and_gone_before_the_next():
    class Watching(ToyModels):
        def open(self, ref):
            gc.collect()
            alive.append([name() is not None for name in references])
            model = super().open(ref)
            del self.models[ref.name]  # nobody else holds it
            references.append(weakref.ref(model))
            return model

        def identity(self, ref):
            return ref.label

    references, alive = [], []
    failing = ToyModel("b", broken={"two": RuntimeError("boom")})
    source = Watching(a=ToyModel("a"), b=failing, c=ToyModel("c"))
    del failing
    run_prepared(ToySuite(["a", "b", "c"], TEXTS), source=source)
    assert alive == [[], [False], [False, False]]
    assert source.opened == ["a", "b", "c"] and source.freed == 3


def test_a_model_that_cannot_be_opened_is_tried_once():
    source = ToyModels(bad=ModelError("no", "none"), a=ToyModel("a"))
    run(source)
    assert source.opened == ["bad", "a"]


def test_progress_hears_plan_start_steps_and_finish_in_order():
    watcher = Watcher()
    run({"a": ToyModel("a")}, progress=watcher)
    assert watcher.events[:5] == [
        ("plan", 6),
        ("start", "a", "count", "texts 0"),
        ("step", 1, 2),
        ("step", 2, 2),
        ("finish", "a", "count", "texts 0"),
    ]
    assert watcher.events[-1] == ("ended", "a", "again", "done")
    assert len([e for e in watcher.events if e[0] == "finish"]) == 6


def test_a_run_that_was_cut_off_goes_on_where_it_was_and_ends_the_same(tmp_path):
    whole = run({"a": ToyModel("a"), "b": ToyModel("b")}, seed=3)
    for cut in range(12):
        folder = tmp_path / str(cut)
        with pytest.raises(KeyboardInterrupt):
            run({"a": ToyModel("a"), "b": ToyModel("b")}, seed=3, cells=folder,
                progress=Watcher(interrupt_after=cut))  # fmt: skip
        watcher = Watcher()
        resumed = run({"a": ToyModel("a"), "b": ToyModel("b")}, seed=3, cells=folder, resume=True,
                      progress=watcher)  # fmt: skip
        assert (len(watcher.reused), len(watcher.finished)) == (cut, 12 - cut)
        assert timeless(resumed) == timeless(whole)


def test_a_finished_run_is_resumed_without_loading_any_model(tmp_path):
    first = run({"a": ToyModel("a")}, cells=tmp_path)
    source = ToyModels(a=ToyModel("a"))
    again = run(source, cells=tmp_path, resume=True)
    assert source.opened == [] and timeless(again) == timeless(first)
    # What the cells took is theirs; only when the run started and ended is new.
    assert [c.seconds for c in again.cells] == [c.seconds for c in first.cells]


def test_without_resume_everything_is_run_again(tmp_path):
    run({"a": ToyModel("a")}, cells=tmp_path)
    model = ToyModel("a")
    run({"a": model}, cells=tmp_path)
    assert tuple(model.read) == TEXTS


@pytest.mark.parametrize("change", ["seed", "text", "model", "code"])
def test_a_cell_is_reused_only_where_all_it_depends_on_is_equal(tmp_path, monkeypatch, change):
    run({"a": ToyModel("a")}, cells=tmp_path)
    texts, seed, models = list(TEXTS), 0, ToyModels(a=ToyModel("a"))
    if change == "seed":
        seed = 1
    if change == "text":
        texts[2] = "drei"
    if change == "model":
        monkeypatch.setattr(models, "identity", lambda ref: "another digest")
    if change == "code":
        monkeypatch.setattr("moetui.suites.cells.code_digest", lambda: "another release")
    watcher = Watcher()
    run_prepared(ToySuite(["a"], texts), source=models, seed=seed, cells=tmp_path, resume=True,
                 progress=watcher)  # fmt: skip
    # Of a changed text only its own part, and what follows from it, is made again.
    assert watcher.reused == (["texts 0", "texts 4"] if change == "text" else [])


def test_a_null_model_runs_after_its_model_and_is_told_apart():
    source = ToyModels(a=ToyModel("a"), b=ToyModel("b"))
    result = run(source, null_model=True)
    assert source.opened == ["a", "a (random weights)", "b", "b (random weights)"]
    assert [(r.name, r.null_of) for r in result.models] == [
        ("a", None), ("a (random weights)", "a"), ("b", None), ("b (random weights)", "b")
    ]  # fmt: skip
    # Verdicts are on trained models alone.
    assert result.verdicts[0].seed.statement == "a:done a:done b:done b:done"
    assert [(s.model, s.null_model, s.verdict) for s in result.separation] == [
        ("a", "a (random weights)", "does not separate"),
        ("b", "b (random weights)", "does not separate"),
    ]
    assert result.separation[0].difference.value == 0


def test_a_null_model_that_fails_leaves_the_trained_models_results():
    class NoNull(ToyModels):
        def open(self, ref):
            if ref.initialisation:
                raise ModelError("no initialiser", "none")
            return super().open(ref)

    result = run(NoNull(a=ToyModel("a")), null_model=True)
    assert [c.status for c in result.cells] == ["done", "done", "failed", "failed"]
    assert result.separation[0].verdict == "inconclusive"


def test_the_document_survives_json_and_every_type_in_it_has_a_schema(tmp_path):
    result = run({"a": ToyModel("a")}, null_model=True)
    assert result.parameters == {"models": ["a"], "texts": list(TEXTS)} and result.seed == 0
    assert {"python", "numpy", "scipy"} <= result.versions.keys()
    assert result.environment.keys() == {"system", "machine", "processors"}
    assert result.started <= result.finished
    path = tmp_path / "deep" / "result.json"
    write_result(result, path)
    assert read_result(path) == result
    assert path.read_bytes() == result_json(result)
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]  # no temporary file left
    msgspec.json.schema(SuiteResult)


def test_a_place_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    result = run({"a": ToyModel("a")})
    (tmp_path / "file").write_text("old")
    with pytest.raises(MoetuiError, match="cannot make the folder"):
        write_result(result, tmp_path / "file" / "result.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(MoetuiError, match="cannot write"):
        write_result(result, tmp_path / "folder.json")
    assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(MoetuiError, match="cannot make the folder"):
        run({"a": ToyModel("a")}, cells=tmp_path / "file")


def test_an_unknown_suite_names_the_nearest():
    with pytest.raises(UsageError, match="no suite 'atention_router'") as caught:
        run_suite("atention_router")
    assert "attention_router" in caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("parameters", "message", "hint"),
    [
        ({"promts": ["a"]}, "no parameter 'promts'", "did you mean 'prompts'"),
        ({"corpus_documents": "x"}, r"corpus_documents", "--describe"),
        ({"corpus_documents": -1}, r"corpus_documents", "--describe"),
        ({"prompts": []}, r"prompts", "--describe"),
        ({"models": []}, r"models", "--describe"),
    ],
)
def test_unknown_or_unfit_parameters_are_refused(parameters, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        suite("attention_router", parameters)
    assert hint in caught.value.hint
