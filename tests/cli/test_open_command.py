"""`moetui open` and `moetui compare` on good and bad files, without a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moetui.cli import run
from moetui.cli.open import opened
from moetui.suites import write_result
from moetui.trace import Trace
from tests.builders import make_trace
from tests.suites.sample import HOSTILE, SHARE, make_result


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "result.json"
    write_result(make_result(), path)
    return path


def test_the_content_not_the_name_tells_what_a_file_is(tmp_path: Path, result: Path) -> None:
    trace = tmp_path / "trace.json"
    make_trace().save(trace)
    assert isinstance(opened(trace), Trace)
    renamed = result.rename(tmp_path / "r.moetrace")
    assert opened(renamed) == make_result()


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("r.json", b"{", "cut off"),
        ("r.json", b"no", "is not JSON"),
        ("r.json", None, "no such file"),
        ("r.json", b'{"schema_version": 7, "suite": "x", "cells": []}', "result format 7"),
        ("t.moetrace", b"\x10\0\0\0\0\0\0\0{}", "not a readable .moetrace file"),
        ("t.moetrace", b"\xff\xff\xff\xff\xff\0\0\0{}", "not a readable .moetrace file"),
    ],
)
def test_a_bad_file_is_two_lines_and_exit_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    cause: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert run(["open", str(path)]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2
    assert lines[0].startswith("error: ") and cause in lines[0] and lines[1].startswith("hint: ")


def test_a_folder_is_two_lines_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["open", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_without_a_terminal_what_to_do_instead_is_said(
    tmp_path: Path, result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["open", str(result)]) == 2
    assert "moetui compare" in capsys.readouterr().err
    trace = tmp_path / "t.moetrace"
    make_trace().save(trace)
    assert run(["open", str(trace)]) == 2
    assert "moetui.open_trace" in capsys.readouterr().err


def test_reading_a_saved_file_imports_nothing_that_runs_models(result: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from moetui.cli.open import opened; "
        "opened(Path(sys.argv[1])); import moetui.tui.app, moetui.tui.panes; "
        "print(sorted({n.partition('.')[0] for n in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(result)], capture_output=True, text=True, check=True
    )
    assert "'moetui'" in done.stdout
    for heavy in ("'mlx'", "'mlx_lm'", "'transformers'", "'torch'"):
        assert heavy not in done.stdout


def test_compare_shows_the_numbers_of_both(
    tmp_path: Path, result: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    other = tmp_path / "other.json"
    write_result(make_result("other", seed=3), other)
    assert run(["compare", str(result), str(other)]) == 0
    text = " ".join(capfdbinary.readouterr().out.decode().split())
    assert f"{SHARE.value:.3f} [{SHARE.ci_low:.3f}, {SHARE.ci_high:.3f}]" in text
    assert "the seeds of the random draws differ" in text
    assert run(["compare", str(result), str(other), "--format", "json"]) == 0
    document = json.loads(capfdbinary.readouterr().out)
    assert document["first"] == str(result) and len(document["measures"]) == 6
    shares = [m for m in document["measures"] if m["label"] == "corrected"]
    assert shares[0]["first"]["value"] == SHARE.value and shares[0]["difference"]["value"] == 0
    assert run(["compare", str(result), str(other), "--format", "markdown"]) == 0
    assert capfdbinary.readouterr().out.decode().startswith("# attention_router: two results\n")


def test_compare_refuses_other_suites_and_bad_files(
    tmp_path: Path, result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    write_result(make_result(suite="moe_dynamics"), other)
    assert run(["compare", str(result), str(other)]) == 2
    assert "attention_router and moe_dynamics" in capsys.readouterr().err
    other.write_text("{")
    assert run(["compare", str(result), str(other)]) == 2
    assert "cut off" in capsys.readouterr().err


def test_the_summary_of_a_batch_run_shows_its_numbers_and_no_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from moetui.cli.batch_table import print_summary

    print_summary(make_result(f"[red]{HOSTILE}"))
    text = capsys.readouterr().err
    assert f"[{SHARE.ci_low:.3f}, {SHARE.ci_high:.3f}]" in text
    assert "measures that do not tell training from random weights" in text
    assert "[red]a|b" in text and "\x1b" not in text and "\u202e" not in text


def test_a_saved_file_in_place_of_a_model_names_the_command(
    result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(result)]) == 2
    assert f"`moetui open {result}`" in capsys.readouterr().err
