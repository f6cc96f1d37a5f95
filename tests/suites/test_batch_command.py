"""`moetui batch` with a fake model: what goes where, and with which exit code."""

import json
import re

import pytest

from moetui.cli import run as moetui_run
from moetui.errors import ModelError
from moetui.suites.wording import number
from tests.suites.fake import FakeModel, Opened

SMALL = [
    f"--parameter={name}"
    for name in ("corpus_documents=20", "corpus_tokens=8", "causal_documents=5", "mined_tokens=1")
]


@pytest.fixture
def batch(monkeypatch, tmp_path, capfdbinary):
    models = {
        "demo": FakeModel("demo"),
        "./other": FakeModel("./other"),
        "./dense": FakeModel("./dense", moe_layers=()),
        "./broken": ModelError("weights are damaged", "download it again"),
    }
    monkeypatch.setattr("moetui.suites.models.Loaded", lambda: Opened(**models))
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = moetui_run(["batch", *arguments])
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return call


def test_the_default_output_is_a_dated_file_and_its_path_is_all_of_stdout(batch, tmp_path):
    code, out, err = batch("attention_router", *SMALL)
    assert code == 0
    assert re.fullmatch(r"results/attention_router_\d{8}_\d{6}\.json\n", out)
    document = json.loads((tmp_path / out.strip()).read_text())
    assert document["suite"] == "attention_router" and document["models"][0]["name"] == "demo"
    assert "Seed rule: " in err and "seed ratio, mean over layers" in " ".join(err.split())
    assert f"moetui open {out.strip()}" in err


def test_the_table_shows_the_numbers_of_the_document(batch):
    _, out, err = batch("attention_router", *SMALL, "-o", "-", "--progress", "off")
    document = json.loads(out)
    by_type = {c["result"]["type"]: c["result"] for c in document["cells"]}
    ratio = by_type["prompt_decomposition"]["seed"]["mean_ratio"]
    mean = by_type["corpus_decomposition"]["corrected"]["mean"]
    share = next(p for p in mean["parts"] if p["part"] == "attention")["across_tokens"]
    shown = " ".join(err.split())
    assert f"{number(ratio)} (a)" in shown
    limits = ", ".join(number(share[end]) for end in ("ci_low", "ci_high"))
    assert f"{number(share['value'])} [{limits}]" in shown


def test_a_file_or_a_folder_can_be_named(batch, tmp_path):
    assert batch("attention_router", *SMALL, "-o", "deep/x.json")[1] == "deep/x.json\n"
    assert (tmp_path / "deep" / "x.json").is_file()
    assert batch("attention_router", *SMALL, "-o", "folder")[1].startswith("folder/attention_")


def test_a_folder_that_cannot_be_made_is_refused_before_anything_runs(batch, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = batch("attention_router", *SMALL, "-o", "file/x.json")
    assert (code, out) == (2, "") and "cannot make the folder" in err


def test_one_failing_model_exits_1_and_keeps_the_rest(batch):
    code, out, err = batch(
        "attention_router", *SMALL, "-m", "demo", "-m", "./broken", "-o", "-", "--progress", "off"
    )
    assert code == 1
    statuses = [(c["model"], c["status"]) for c in json.loads(out)["cells"]]
    assert [model for model, _ in statuses] == ["demo"] * 8 + ["./broken"] * 8
    assert all((status == "failed") == (model == "./broken") for model, status in statuses)
    assert "weights are damaged" in err


def test_a_model_that_cannot_be_used_at_all_exits_2(batch):
    code, out, err = batch("attention_router", "-m", "./nowhere", "--progress", "off")
    assert (code, out) == (2, "")
    assert err == "error: no model './nowhere'\nhint: give a folder or org/name\n"


def test_a_dense_model_is_an_answer(batch):
    code, out, err = batch("attention_router", "-m", "./dense", "-o", "-", "--progress", "off")
    assert code == 0
    assert json.loads(out)["verdicts"][0]["seed"]["outcome"] == "inconclusive"
    assert "no router" in err


def test_an_interrupt_exits_130_and_leaves_no_result(batch, monkeypatch, tmp_path):
    class Interrupted(Opened):
        def open(self, ref):
            raise KeyboardInterrupt

    monkeypatch.setattr("moetui.suites.models.Loaded", lambda: Interrupted(demo=None))
    code, out, _ = batch("attention_router", "-o", "out")
    assert (code, out) == (130, "")
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["atention_router"], "did you mean attention_router"),
        (["attention_router", "--parameter", "layer=[1]"], "did you mean 'layers'"),
        (["attention_router", "--parameter", "layers"], "is not KEY=JSON"),
        (["attention_router", "--parameter", "layers=[1"], "is not JSON"),
        (["attention_router", "--parameter", "other.layers=[1]"], "attention_router.layers"),
        (["attention_router", "--parameter", 'layers="x"'], "layers"),
        (["attention_router", "-m", "demo", "--parameter", 'models=["demo"]'], "one way only"),
        (["attention_router", "--seed", "-1"], "--seed"),
        ([], "SUITE"),
    ],
)
def test_bad_usage_exits_2_and_names_what_is_near(batch, arguments, message):
    code, out, err = batch(*arguments)
    assert (code, out) == (2, "")
    assert message in err and err.startswith("error: ") and "hint: " in err


def test_parameters_are_json_and_may_name_their_suite(batch):
    _, out, _ = batch(
        "attention_router", *SMALL, "-o", "-", "--progress", "off", "--seed", "7",
        "--parameter", "attention_router.layers=[1,2]", "--parameter", 'models=["./other"]',
    )  # fmt: skip
    document = json.loads(out)
    assert document["parameters"]["layers"] == [1, 2] and document["seed"] == 7
    assert [m["name"] for m in document["models"]] == ["./other"]
    seeds = [c["result"]["seed"] for c in document["cells"] if "seed" in (c["result"] or {})]
    assert [layer["layer"] for layer in seeds[0]["layers"]] == [1, 2]


def test_describe_shows_question_parameters_and_cost_and_runs_nothing(batch, tmp_path):
    code, out, err = batch("attention_router", "--describe")
    assert code == 0 and err == ""
    for word in (
        "Does what attention adds",
        "corpus_documents = 200",
        'layers = ["first","mid","last"]',
        "Cost:",
    ):
        assert word in out
    assert "What is forty-five times thirty-seven?" in out
    assert list(tmp_path.iterdir()) == []


def test_dry_run_shows_models_and_analyses_within_80_columns_and_loads_nothing(batch, tmp_path):
    code, out, _ = batch("attention_router", "--dry-run", "-m", "demo", "-m", "./nowhere")
    assert code == 0
    cells = 2 + 2 + 9 + 4 + 4 + 4 + 2 + 8  # of each analysis: its parts and the statistics
    assert out.splitlines()[0] == f"attention_router: 2 × {cells} = {2 * cells} cells"
    # 200 documents of 128 tokens, 60 of them asked of the routers as well, 60 of 64 by expert and
    # by head
    assert f"about {2 * (200 * 128 + 60 * 128 + 2 * 60 * 64):,} tokens" in out
    assert "\n  demo\n  ./nowhere\n" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["causal_check"][1:3] == ["4", "7,680"]
    assert rows["causal_check"][3] == f"≤{25 * 128:,}"
    assert rows["causal_check"][4:] == ["documents", "1-25", "…", "documents", "51-60"]
    assert rows["sanity"][1:] == ["2", "?", "?", "checks"]
    assert max(map(len, out.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


def test_a_parameter_without_a_suite_is_for_those_that_have_it(batch):
    both = ("attention_router", "moe_routing_correlation", "--dry-run")
    code, out, _ = batch(*both, "--parameter", "operand_pairs=3", "--parameter", 'models=["./x"]')
    assert code == 0 and out.count("\n  ./x\n") == 2
    # 8 prompts' worth of tokens for each of 12 seed problems, and 3 × 4 problems in 7 templates
    probes = next(line for line in out.splitlines() if line.startswith("probes"))
    assert probes.split()[2] == f"{8 * (12 + 3 * 4 * 7)}"
    code, _, err = batch(*both, "--parameter", "operand_pair=3")
    assert code == 2 and "moe_routing_correlation has no parameter 'operand_pair'" in err
    assert "'operand_pairs'" in err


def test_progress_as_json_is_one_object_a_line(batch):
    _, _, err = batch("attention_router", *SMALL, "--progress", "json")
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert events[0]["event"] == "plan"
    analyses = dict.fromkeys(cell["analysis"] for cell in events[0]["cells"])
    assert list(analyses) == [
        "sanity", "decomposition", "corpus_decomposition", "source_experts", "source_heads",
        "causal_check", "token_identity", "context_sensitivity",
    ]  # fmt: skip


def test_model_names_are_never_read_as_markup(batch, monkeypatch):
    name = "./[red]x[/red]"
    monkeypatch.setattr("moetui.suites.models.Loaded", lambda: Opened(**{name: FakeModel(name)}))
    code, _, err = batch("attention_router", *SMALL, "-m", name)
    assert code == 0 and f"{name} sanity: done" in err
