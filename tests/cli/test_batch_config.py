"""`moetui batch --config` and `--print-config`: precedence, and that one undoes the other."""

import pytest
import yaml

import moetui.cli.batch
from moetui.cli import run as moetui_run
from tests.suites.configurable import suites

__all__ = ["suites"]


@pytest.fixture
def batch(suites, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = moetui_run(["batch", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def runs(monkeypatch):
    """What would have been run."""
    made = []

    def run(picked, output, progress, circumstances):
        made.append((picked[0], output, circumstances["seed"], circumstances))
        raise KeyboardInterrupt

    monkeypatch.setattr(moetui.cli.batch, "_run_all", run)
    return made


def test_what_is_printed_changes_nothing_when_it_is_read(batch, tmp_path):
    given = ["--parameter", 'first_suite.words={"`def`\\n":["yes","é"]}', "--seed", "4",
             "--null-model", "-o", "there", "--report"]  # fmt: skip
    code, out, err = batch("first_suite", "second_suite", "--print-config", "-m", "x", *given)
    assert (code, err) == (0, "")
    (tmp_path / "c.yaml").write_text(out)
    again = batch("first_suite", "second_suite", "--print-config", "--config", "c.yaml")
    assert again == (0, out, "")
    assert yaml.safe_load(out)["second_suite"]["models"] == ["x"]


def test_the_defaults_are_printed_and_explained(batch):
    _, out, _ = batch("first_suite", "--print-config")
    found = yaml.safe_load(out)
    assert found == {
        "corpus": None, "seed": 0, "null_model": False, "output": "results", "report": False,
        "first_suite": {"models": ["demo"], "layers": None, "words": {"+": ["add", "yes", "1e3"]},
                        "threshold": 0.1, "documents": 9},
    }  # fmt: skip
    lines = out.splitlines()
    for name in [*found, *found["first_suite"]]:
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
        assert lines[at - 1].strip().startswith("# ") and len(lines[at - 1].strip()) > 5


def test_the_command_line_goes_before_the_file_and_the_file_before_the_defaults(
    batch, runs, tmp_path
):
    (tmp_path / "c.yaml").write_text(
        "seed: 5\nnull_model: true\nreport: true\noutput: there\ncorpus: texts.txt\nmodels: [m]\n"
        "first_suite:\n  layers: [1]\n  threshold: 0.5\n"
    )
    arguments = ["first_suite", "--config", "c.yaml"]
    batch(*arguments)
    batch(*arguments, "--seed", "6", "--no-null-model", "--no-report", "-o", "here", "-m", "n",
          "--corpus", "other.txt", "--parameter", "layers=[2]")  # fmt: skip
    (suite, place, seed, options), (suite_2, place_2, seed_2, options_2) = runs
    assert (seed, options["null_model"], suite.corpus) == (5, True, "texts.txt")
    assert place.targets[0].cells.name == "there" and place.report is not None
    assert (suite.parameters.layers, suite.parameters.models) == ((1,), ("m",))
    assert (seed_2, options_2["null_model"], suite_2.corpus) == (6, False, "other.txt")
    assert place_2.targets[0].cells.name == "here" and place_2.report is None
    assert (suite_2.parameters.layers, suite_2.parameters.models) == ((2,), ("n",))
    assert suite.parameters.threshold == suite_2.parameters.threshold == 0.5
    assert suite.parameters.documents == 9


def test_models_of_the_file_give_way_to_models_by_parameter(batch, runs, tmp_path):
    (tmp_path / "c.yaml").write_text("models: [m]\n")
    batch("first_suite", "--config", "c.yaml", "--parameter", 'models=["p"]')
    assert runs[0][0].parameters.models == ("p",)


def test_a_mistake_in_a_section_that_is_not_run_is_refused_too(batch, tmp_path):
    (tmp_path / "c.yaml").write_text("second_suite:\n  lens: tunde\n")
    code, out, err = batch("first_suite", "--config", "c.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("error: c.yaml, line 2: second_suite.lens: invalid enum value 'tunde'")
    assert len(err.splitlines()) == 2


def test_describe_says_what_every_parameter_means(batch):
    _, out, _ = batch("first_suite", "--describe")
    assert "  layers = null\n      decoder layers\n" in out
    assert "  documents = 9\n      of the corpus, each once; 100 needed\n" in out
