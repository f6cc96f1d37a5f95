"""The installed command on a machine that has never seen it: empty HOME, another directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MOETUI = Path(sys.executable).with_name("moetui")

DOCUMENTED = {
    "schema_version",
    "model",
    "tokens",
    "token_kinds",
    "token_ids",
    "prompt_tokens",
    "layers",
    "router_logits",
    "expert_ids",
    "expert_weights",
    "shares",
    "seed_ratio",
    "lens",
    "completeness",
}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory with nothing in it, so that nothing is found by chance."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def moetui(elsewhere: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the console script with an empty HOME and no settings in the environment."""
    home = elsewhere.parent / "home"
    home.mkdir()
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run(
        [str(MOETUI), *arguments],
        cwd=elsewhere,
        env={**environment, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_two_line_error(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Exit code 2, nothing on standard output, cause and next step on standard error."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    cause, step = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    return cause, step


def test_trace_of_the_demo_model_is_json_with_the_documented_keys(elsewhere: Path) -> None:
    done = moetui(elsewhere, "trace", "-m", "demo", "-p", "127 + 45 =")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) >= DOCUMENTED
    assert document["model"]["architecture"] == "olmoe"
    tokens, layers = len(document["tokens"]), len(document["layers"])
    assert "".join(document["tokens"]) == "127 + 45 ="
    assert document["prompt_tokens"] == tokens == len(document["token_ids"])
    assert layers == document["model"]["num_layers"]
    k, experts = document["model"]["top_k"], document["model"]["num_experts"]
    for field, width in {"expert_ids": k, "expert_weights": k, "router_logits": experts}.items():
        assert len(document[field]) == tokens
        assert all(len(row) == layers for row in document[field])
        assert all(len(cell) == width for row in document[field] for cell in row)
    assert list(elsewhere.iterdir()) == []


def test_unknown_model_says_cause_and_next_step(elsewhere: Path) -> None:
    cause, step = assert_two_line_error(moetui(elsewhere, "trace", "-m", "nowhere", "-p", "x"))
    assert "nowhere" in cause
    assert step


def test_without_a_terminal_the_explorer_points_to_trace_and_batch(elsewhere: Path) -> None:
    cause, step = assert_two_line_error(moetui(elsewhere))
    assert "terminal" in cause
    assert "moetui trace" in step
    assert "moetui batch" in step


def test_mistyped_command_names_the_nearest(elsewhere: Path) -> None:
    cause, step = assert_two_line_error(moetui(elsewhere, "trcae"))
    assert "trcae" in cause
    assert "moetui trace" in step
