import msgspec
import pytest

from moetui.errors import ModelError, MoetuiError, RunFailedError, UsageError
from moetui.suites import read_result, result_json, run_suite, suite, write_result
from moetui.suites.results import SuiteResult
from tests.suites.fake import FakeModel, opener

SMALL = {"corpus_documents": 20, "corpus_tokens": 8}


class Watcher:
    def __init__(self):
        self.events = []

    def plan(self, cells):
        self.events.append(("plan", len(cells)))

    def start(self, cell):
        self.events.append(("start", cell.model, cell.analysis))

    def step(self, done, total):
        self.events.append(("step", done, total))

    def finish(self, result):
        self.events.append(("finish", result.model, result.status))


def run(models, watcher=None, **parameters):
    return run_suite(
        "attention_router",
        models=list(models),
        parameters={**SMALL, **parameters},
        progress=watcher,
        open_model=opener(**models),
    )


def test_a_model_that_fails_to_load_keeps_the_others_results():
    bad = ModelError("weights are damaged", "download it again")
    result = run({"a": FakeModel("a"), "b": bad, "c": FakeModel("c")})
    assert [c.status for c in result.cells] == ["done"] * 3 + ["failed"] * 3 + ["done"] * 3
    assert {c.model for c in result.failures} == {"b"}
    assert all("weights are damaged" in c.reason for c in result.failures)
    records = {r.name: r for r in result.models}
    assert records["b"].info is None and "damaged" in records["b"].failure
    assert records["c"].info.name == "c" and records["c"].failure is None
    # What is missing for one model leaves the claim about all models open.
    assert result.verdict.corrected.outcome == "inconclusive"


def test_a_defect_in_one_analysis_is_a_failed_cell_not_a_crash():
    class Broken(FakeModel):
        def trace(self, text_or_ids, *, lens=5, residuals=True):
            if not residuals:
                raise RuntimeError("boom")
            return super().trace(text_or_ids, lens=lens)

    result = run({"a": Broken("a")})
    assert [c.status for c in result.cells] == ["done", "done", "failed"]
    assert result.cells[2].reason == "RuntimeError: boom"
    assert result.models[0].failure is None
    assert result.verdict.corrected.outcome != "inconclusive"


def test_where_nothing_succeeds_the_first_cause_is_raised():
    with pytest.raises(ModelError, match="no model 'x'"):
        run_suite("attention_router", models=["x"], open_model=opener())
    with pytest.raises(RunFailedError, match="nothing succeeded: ValueError: odd"):
        run({"a": ValueError("odd")})


def test_an_interrupt_is_never_swallowed():
    class Interrupted(FakeModel):
        def trace(self, text_or_ids, *, lens=5, residuals=True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({"a": Interrupted("a")})


def test_a_model_is_opened_once_for_all_its_cells():
    opened = []

    def open_model(name):
        opened.append(name)
        return FakeModel(name)

    run_suite("attention_router", models=["a", "b", "a"], parameters=SMALL, open_model=open_model)
    assert opened == ["a", "b"]


def test_a_model_that_cannot_be_opened_is_tried_once():
    tried = []

    def open_model(name):
        tried.append(name)
        if name == "bad":
            raise ModelError("no", "none")
        return FakeModel(name)

    run_suite("attention_router", models=["bad", "a"], parameters=SMALL, open_model=open_model)
    assert tried == ["bad", "a"]


def test_progress_hears_plan_start_steps_and_finish_in_order():
    watcher = Watcher()
    run({"a": FakeModel("a")}, watcher, prompts=["one two", "three"])
    assert watcher.events[:5] == [
        ("plan", 3),
        ("start", "a", "decomposition"),
        ("step", 1, 2),
        ("step", 2, 2),
        ("finish", "a", "done"),
    ]
    assert watcher.events[-2] == ("step", 12, 12)


def test_the_document_names_everything_it_depends_on_and_survives_json(tmp_path):
    result = run({"a": FakeModel("a")}, prompts=["one two"])
    assert result.schema_version == 1 and result.suite == "attention_router"
    assert result.parameters["prompts"] == ["one two"] and result.parameters["models"] == ["a"]
    assert result.parameters["corpus_tokens"] == 8 and result.seed == 0
    assert {"python", "numpy", "scipy"} <= result.versions.keys()
    assert result.environment.keys() == {"system", "machine", "processors"}
    assert result.started <= result.finished
    path = tmp_path / "deep" / "result.json"
    write_result(result, path)
    assert read_result(path) == result
    assert path.read_bytes() == result_json(result)
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]  # no temporary file left
    msgspec.json.schema(SuiteResult)  # every type in it has a schema


def test_equal_runs_give_equal_documents_times_apart():
    def timeless(result):
        cells = tuple(msgspec.structs.replace(c, seconds=0.0) for c in result.cells)
        return msgspec.structs.replace(result, cells=cells, started="", finished="")

    first, second = (run({"a": FakeModel("a")}) for _ in range(2))
    assert result_json(timeless(first)) == result_json(timeless(second))


def test_the_prompts_digest_follows_the_prompts():
    digests = {
        suite("attention_router", {"prompts": [text]}).prompts_digest() for text in ("a", "b", "a")
    }
    assert len(digests) == 2


def test_a_place_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    result = run({"a": FakeModel("a")})
    (tmp_path / "file").write_text("old")
    with pytest.raises(MoetuiError, match="cannot make the folder"):
        write_result(result, tmp_path / "file" / "result.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(MoetuiError, match="cannot write"):
        write_result(result, tmp_path / "folder.json")
    assert (tmp_path / "file").read_text() == "old"


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


def test_an_unknown_suite_names_the_nearest():
    with pytest.raises(UsageError, match="no suite 'atention_router'") as caught:
        run_suite("atention_router")
    assert "attention_router" in caught.value.hint and caught.value.exit_code == 2
