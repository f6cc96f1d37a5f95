"""`moetui trace --fidelity`, as a process would call it, on packed copies of the demo model."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

import moetui
from moetui.cli import run, trace_fidelity
from moetui.demo import checkpoint, corpus
from moetui.model import Model
from tests.reference.values import DATA

PROMPT = "127 + 45 ="
DOCUMENTS, TOKENS = 20, 16


@pytest.fixture(autouse=True)
def _few_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_fidelity, "DOCUMENTS", DOCUMENTS)
    monkeypatch.setattr(trace_fidelity, "TOKENS", TOKENS)


def packed(folder: Path, bits: int) -> Path:
    network, config = quantize_model(*load_model(checkpoint("demo")), group_size=64, bits=bits)
    save_model(folder, network)
    save_config(config, folder / "config.json")
    for file in checkpoint("demo").glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("four"), 4)


@pytest.fixture(scope="module")
def eight_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("eight"), 8)


def document_of(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> dict[str, Any]:
    assert run(["trace", "-p", PROMPT, *arguments]) == 0
    out, err = capfdbinary.readouterr()
    assert err == b""
    found: dict[str, Any] = json.loads(out)
    return found


def chosen(model: Model, ids: np.ndarray) -> list[list[set[int]]]:
    """The experts of every token and layer: the four best of the router's logits."""
    best = np.argsort(-model.trace(ids).router_logits, axis=-1)[..., :4]
    return [[set(layer) for layer in token] for token in best.tolist()]


def test_the_shares_are_those_counted_one_by_one(
    four_bits: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    document = document_of(capfdbinary, "-m", str(four_bits), "--fidelity", "demo")
    texts = list(corpus("evaluation"))
    drawn = np.random.default_rng(0).choice(len(texts), DOCUMENTS, replace=False)
    model, reference = moetui.load(four_bits), moetui.load("demo")
    differs = []
    for index in drawn:
        ids = model.tokenize(texts[index].text)[:TOKENS]
        pairs = zip(chosen(model, ids), chosen(reference, ids), strict=True)
        differs += [[a != b for a, b in zip(*tokens, strict=True)] for tokens in pairs]
    assert document["tokens"] == len(differs)
    by_layer = np.mean(differs, axis=0)
    assert 0 < by_layer.min() < 0.9
    given = [layer["differs"]["value"] for layer in document["layers"]]
    np.testing.assert_allclose(given, by_layer)
    assert document["overall"]["differs"]["value"] == pytest.approx(np.mean(differs))
    assert document["any_layer"]["value"] == pytest.approx(np.any(differs, axis=1).mean())
    for found in (document["overall"]["differs"], document["any_layer"]):
        assert found["ci_low"] < found["value"] < found["ci_high"]
        assert found["n_documents"] == DOCUMENTS
    ids = model.tokenize(PROMPT)
    pairs = zip(chosen(model, ids), chosen(reference, ids), strict=True)
    expected = [[a != b for a, b in zip(*tokens, strict=True)] for tokens in pairs]
    assert document["prompt"]["differs"] == expected
    assert document["prompt"]["hits"] == int(np.sum(expected))
    assert document["prompt"]["tokens"] == ["127", " +", " 45", " ="]


@pytest.mark.slow
def test_eight_bits_differ_less_than_four_and_the_same_checkpoint_not_at_all(
    four_bits: Path, eight_bits: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    models = {4: str(four_bits), 8: str(eight_bits), 16: "demo"}
    documents = {
        bits: document_of(capfdbinary, "-m", name, "--fidelity", "demo")
        for bits, name in models.items()
    }
    shares = {bits: d["overall"]["differs"]["value"] for bits, d in documents.items()}
    assert shares[4] > shares[8] > shares[16] == 0
    for bits, document in documents.items():
        assert document["model"]["router_bits"] == bits
        assert document["reference"]["router_bits"] == 16


def test_the_text_names_both_precisions_and_where_the_prompt_differs(
    four_bits: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    arguments = ("-m", str(four_bits), "--fidelity", "demo")
    document = document_of(capfdbinary, *arguments)
    path = tmp_path / "fidelity.txt"
    assert run(["trace", "-p", PROMPT, *arguments, "--format", "text", "-o", str(path)]) == 0
    lines = path.read_text().splitlines()
    assert "4-bit affine, 4-bit routers" in lines[0] and "not quantised, 16-bit" in lines[0]
    overall = next(line for line in lines if line.startswith("  all"))
    found = document["overall"]["differs"]
    interval = f"[{found['ci_low']:.3f}, {found['ci_high']:.3f}]"
    assert overall.split()[1] == f"{found['value']:.3f}" and interval in overall
    assert f"{document['prompt']['hits']} of 32 choices differ" in path.read_text()
    row = document["prompt"]["differs"][3]
    where = ", ".join(str(layer) for layer, differs in enumerate(row) if differs)
    assert lines[-1] == f"3 ' ='  {'layers ' + where if where else 'same experts'}"


def test_the_first_model_is_gone_before_the_second_is_loaded(
    four_bits: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    load, loaded = moetui.load, []

    def watched(name: str, **options: Any) -> Model:
        assert all(model() is None for model in loaded)
        model = load(name, **options)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr("moetui.model.load", watched)
    document_of(capfdbinary, "-m", str(four_bits), "--fidelity", "demo")
    assert len(loaded) == 2


def other_tokens(folder: Path) -> Path:
    """The demo model with a tokenizer in which two words have changed places."""
    shutil.copytree(checkpoint("demo"), folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    one, other = "Ġthe", "Ġof"
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_another_tokenizer_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "-p", "x", "--fidelity", str(other_tokens(tmp_path / "other"))]) == 2
    says = capfd.readouterr().err.splitlines()
    assert "their tokenizers read" in says[0] and "one model" in says[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fidelity", "demo-dense"], "architecture is olmoe in demo and llama in demo-dense"),
        (["--fidelity", str(DATA / "olmoe")], "num_layers is 8 in demo and 3"),
        (["--fidelity", str(DATA / "mixtral")], "architecture is olmoe in demo and mixtral"),
        (["--fidelity", "./none"], "no such model"),
        (["-m", "demo-dense", "--fidelity", "demo"], "demo-dense is a dense model"),
        (["--fidelity", "demo", "--max-tokens", "3"], "--max-tokens does not go with --fidelity"),
        (["--fidelity", "demo", "-o", "t.moetrace"], "a comparison is no trace"),
        (["--fidelity", "demo", "-o", "/no/folder/t.json"], "cannot write /no/folder/t.json"),
    ],
)
def test_what_cannot_be_compared_is_two_lines_and_exit_code_2(
    arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["trace", "-p", PROMPT, *arguments]) == 2
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2
    assert lines[0].startswith("error: ") and says in lines[0]
    assert lines[1].startswith("hint: ")


def test_nothing_is_loaded_for_options_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Model:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("moetui.model.load", refuse)
    assert run(["trace", "-p", PROMPT, "--fidelity", "demo", "--max-tokens", "2"]) == 2
    assert run(["trace", "-p", PROMPT, "--fidelity", "demo", "-o", "/no/folder/t.json"]) == 2
