"""`moetui models`: as columns, as a table, as JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from moetui.cli import run
from moetui.demo import checkpoint
from moetui.model.inventory import Inventory
from tests.model import zoo


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a cache, a folder of models, and settings that name it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MOETUI_SETTINGS", str(tmp_path / "settings.toml"))
    (tmp_path / "settings.toml").write_text(f'model_folders = ["{tmp_path}/mine"]\n')
    zoo.cached(tmp_path / "hub", "someone/tiny-moe", checkpoint("demo"))
    zoo.hollow(zoo.snapshot(tmp_path / "hub", "someone/Qwen"), zoo.QWEN, zoo.qwen_shapes())
    damaged = zoo.placed(tmp_path / "mine" / "damaged")
    (damaged / "tokenizer.json").unlink()
    return tmp_path


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return capfd.readouterr().out.splitlines()


def test_piped_it_is_one_line_a_model_in_columns(
    machine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["models"]) == 0
    heading, *rows, reason = lines(capfd)
    assert heading.split() == [
        "model", "kind", "architecture", "layers", "disk", "weights", "router", "memory", "fits",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == [
        "demo", "demo-dense", "someone/Qwen", "someone/tiny-moe", f"{machine}/mine/damaged",
    ]  # fmt: skip
    # Every column begins where its heading does.
    at = heading.index("kind")
    assert [row[at:].split("  ")[0] for row in rows[:4]] == [
        "MoE 16 × 4", "dense", "MoE 128 × 8", "MoE 16 × 4",
    ]  # fmt: skip
    assert rows[2].split()[-2:] != rows[3].split()[-2:]
    assert rows[4].split()[-1] == "no"
    assert reason.startswith(f"{machine}/mine/damaged: it has no tokenizer")


def test_how_memory_was_estimated_is_told_beside_the_result(
    machine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(["models", "--context", "512"])
    out, err = capfd.readouterr()
    assert "512 tokens" in err and str(machine / "hub") in err
    assert "512 tokens" not in out


def test_the_json_is_the_documented_type(
    machine: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(["models", "--format", "json", "--context", "1024"]) == 0
    out, err = capfdbinary.readouterr()
    assert err == b""
    document = msgspec.json.decode(out, type=Inventory, strict=True)
    assert document.schema_version == 1
    assert document.context == 1024
    assert document.folders == (str(machine / "mine"),)
    raw = json.loads(out)
    assert raw.keys() == {field.name for field in msgspec.structs.fields(Inventory)}
    by_name = {model["name"]: model for model in raw["models"]}
    assert by_name["someone/Qwen"]["num_experts"] == 128
    assert by_name["someone/Qwen"]["memory"]["weights"] > 60e9
    assert by_name[f"{machine}/mine/damaged"]["kind"] is None


@pytest.mark.parametrize("width", [80, 140])
def test_on_a_terminal_it_is_a_table_that_fits(machine: Path, width: int) -> None:
    """A real terminal: the command with its standard output on a pseudo-terminal of `width`."""
    main, side = pty.openpty()
    variables = {**os.environ, "COLUMNS": str(width), "TERM": "xterm", "NO_COLOR": "1"}
    done = subprocess.Popen(
        [sys.executable, "-m", "moetui", "models"],
        stdin=subprocess.DEVNULL, stdout=side, stderr=subprocess.DEVNULL,
        env={**variables, "HF_HUB_CACHE": str(machine / "hub")},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(side)
    shown = b""
    try:
        while block := os.read(main, 4096):
            shown += block
    except OSError:  # the other end is closed
        pass
    assert done.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    *table, reason = text.replace("\r\n", "\n").splitlines()
    assert "it has no tokenizer" in reason
    assert max(map(len, table)) <= width
    heading = next(line for line in table if "fits" in line)
    assert ("architecture" in heading) is (width == 140)
    assert any("MoE 128 × 8" in line and "61.1 GB" in line for line in table)


def test_settings_that_are_wrong_are_two_lines(
    machine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (machine / "settings.toml").write_text('model_folders = "mine"\n')
    assert run(["models"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    cause, step = err.splitlines()
    assert "model_folders must be a list" in cause and "line 1" in cause
    assert step.startswith("hint: ")
