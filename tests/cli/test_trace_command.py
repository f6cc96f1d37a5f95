"""`moetui trace`, as a process would call it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

import moetui
from moetui.cli import run
from moetui.trace import TraceDocument
from tests.model import tiny
from tests.model.architectures import save

PROMPT = "127 + 45 ="
KEYS = {
    "schema_version", "model", "tokens", "token_ids", "layers", "router_logits", "expert_ids",
    "expert_weights", "shares", "seed_ratio", "lens", "completeness",
}  # fmt: skip


def test_the_json_holds_the_trace(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["trace", "-p", PROMPT]) == 0
    out, err = capfdbinary.readouterr()
    document = json.loads(out)
    assert document.keys() >= KEYS
    assert err == b""
    trace = moetui.load("demo").trace(PROMPT)
    assert document["tokens"] == ["127", " +", " 45", " ="]
    assert np.array_equal(np.array(document["router_logits"], np.float32), trace.router_logits)
    assert document["expert_ids"] == trace.expert_ids.tolist()
    assert document["model"]["digest"] == trace.model.digest


def test_a_file_gets_the_same_bytes_as_standard_output(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "t.json"
    assert run(["trace", "-p", PROMPT, "--max-tokens", "3", "-o", str(path)]) == 0
    assert capfdbinary.readouterr().out == b""
    run(["trace", "-p", PROMPT, "--max-tokens", "3"])
    assert capfdbinary.readouterr().out == path.read_bytes()


def test_the_binary_form_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "t.moetrace"
    assert run(["trace", "-p", PROMPT, "--max-tokens", "2", "-o", str(path)]) == 0
    trace = moetui.open_trace(path)
    assert len(trace) == 6 and trace.prompt_tokens == 4


def test_the_text_form_names_every_layers_experts(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    run(["trace", "-p", PROMPT, "--format", "text"])
    text = capfdbinary.readouterr().out.decode()
    trace = moetui.load("demo").trace(PROMPT)
    best, weight = trace.expert_ids[-1, -1, 0], trace.expert_weights[-1, -1, 0]
    assert f"layer  7  {best}:{weight:.3f}" in text.splitlines()[-1]


def test_a_dense_model_has_a_valid_document_without_routing(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert run(["trace", "-m", "demo-dense", "-p", PROMPT, "--max-tokens", "2"]) == 0
    out, err = capfdbinary.readouterr()
    assert err == b""
    document = msgspec.json.decode(out, type=TraceDocument)
    assert json.loads(out).keys() >= KEYS
    assert document.model.moe_layers == () and document.layers == []
    assert document.router_logits == document.expert_ids == [[]] * 6
    assert document.shares is document.seed_ratio is document.completeness is None
    trace = moetui.load("demo-dense").trace(PROMPT)
    assert document.lens is not None and trace.lens is not None
    assert document.lens.layers == list(range(document.model.num_layers))
    assert document.lens.token_ids[:4] == trace.lens.token_ids.tolist()


def test_the_text_form_says_that_a_model_is_dense_and_what_its_lens_reads(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert run(["trace", "-m", "demo-dense", "-p", PROMPT, "--format", "text"]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[0].startswith("demo-dense: llama, ") and lines[0].endswith("dense (no routers)")
    trace = moetui.load("demo-dense").trace(PROMPT)
    assert trace.lens is not None
    layers = trace.model.num_layers
    assert [line for line in lines[1:] if not line.startswith(" ")] == [
        "0 prompt '127'", "1 prompt ' +'", "2 prompt ' 45'", "3 prompt ' ='",
    ]  # fmt: skip
    assert len(lines) == 1 + 4 * (1 + layers)
    answer = trace.lens.text[int(trace.logits.argmax())]
    assert lines[-1] == f"  layer {layers - 1:>2}  lens {answer!r}"


def test_a_model_whose_routing_cannot_be_read_is_not_called_dense(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = str(tiny.save(*tiny.network("dbrx"), tmp_path))
    assert run(["trace", "-m", folder, "-p", PROMPT, "--format", "text"]) == 0
    first = capfdbinary.readouterr().out.decode().splitlines()[0]
    assert "its routing cannot be read" in first and "dense" not in first
    assert run(["trace", "-m", folder, "-p", PROMPT, "--fidelity", folder]) == 2
    assert "its routing cannot be read" in capfdbinary.readouterr().err.decode().splitlines()[0]


def test_the_binary_form_of_a_dense_model_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "t.moetrace"
    assert run(["trace", "-m", "demo-dense", "-p", PROMPT, "-o", str(path)]) == 0
    trace = moetui.open_trace(path)
    assert not trace.model.is_moe and trace.lens is not None and len(trace) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["trace"], 2, "Missing option '-p'"),
        (["trace", "-p", ""], 2, "the prompt is empty"),
        (["trace", "-p", "x", "-m", "./none"], 2, "no such model"),
        (["trace", "-p", "x", "-o", "/no/folder/t.json"], 2, "cannot write"),
        (["trace", "-p", "x", "--max-tokens", "-1"], 2, "--max-tokens"),
        (["trcae"], 2, "'trcae'"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
def test_bad_usage_is_two_lines_and_an_exit_code(
    arguments: list[str], code: int, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2
    assert lines[0].startswith("error: ") and says in lines[0]
    assert lines[1].startswith("hint: ")


def test_the_text_says_what_cannot_be_read_of_the_architecture(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save("deepseek_v41", tmp_path)
    assert run(["trace", "-m", str(tmp_path), "-p", "127", "--format", "text"]) == 0
    notes = [line for line in capfd.readouterr().out.splitlines() if line.startswith("note: ")]
    assert "residual stream is not one sum" in notes[0]
    assert "logit lens cannot be read" in notes[1]
