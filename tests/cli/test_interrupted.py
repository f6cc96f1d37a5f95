"""Ctrl-C at any moment: exit code 130, and a line that says so and how to go on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import moetui.__main__ as entry
import moetui.cli
import moetui.cli.batch
from moetui.cli import run
from moetui.errors import INTERRUPTED
from moetui.trace.file import write_atomically
from tests.interrupts import interrupt_at


@pytest.fixture(autouse=True)
def default_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    sys.settrace(None)
    signal.signal(signal.SIGINT, before)


# The first lines are those before `try`, and its own: Python is not inside it yet.
@pytest.mark.parametrize("count", range(4, 40))
def test_at_every_line_of_the_command_line(
    count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["moetui", "schema", "--list"])
    monkeypatch.setattr(entry.os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        try:
            interrupt_at(count, entry.__file__, moetui.cli.__file__)
            entry.main()
        finally:
            sys.settrace(None)
    err = capsys.readouterr().err.strip()
    assert (ended.value.code, err) in [(130, INTERRUPTED), (0, "")]


def ended(program: str) -> tuple[int, str]:
    """Exit code of a program, and what it says."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


def test_the_exit_code_is_130_wherever_python_was() -> None:
    """Of an interrupt inside an `exec` of text Python remembers that it was not handled there."""
    program = (
        "import sys, moetui.cli, moetui.__main__ as entry\n"
        "moetui.cli.run = lambda _: exec('import signal; signal.raise_signal(signal.SIGINT)')\n"
        "entry.main()\n"
    )
    assert ended(program) == (130, INTERRUPTED)


def test_an_interrupt_in_a_destructor_is_not_lost() -> None:
    program = (
        "import signal, sys, time, moetui.cli, moetui.__main__ as entry\n"
        "class Pressed:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "def run(_):\n"
        "    Pressed()\n"
        "    for _ in range(2000): time.sleep(0.01)\n"
        "moetui.cli.run = run\n"
        "entry.main()\n"
    )
    assert ended(program) == (130, INTERRUPTED)


def test_an_interrupt_inside_the_import_of_mlx_comes_when_that_is_whole() -> None:
    program = (
        "import signal, sys\n"
        "from moetui.model.blas import import_mlx\n"
        "def hook(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'mlx.core':\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "sys.addaudithook(hook)\n"
        "try:\n"
        "    import_mlx()\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit('whole' if 'mlx.core' in sys.modules else 'halfway')\n"
    )
    assert ended(program) == (1, "whole")


@pytest.mark.parametrize("where", ["chosen", "targets", "_run_all"])
def test_before_during_and_after_a_batch_run(
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    module = {"chosen": "batch_plan", "targets": "batch_output", "_run_all": "batch"}[where]
    monkeypatch.setattr(f"moetui.cli.{module}.{where}", pressed)
    assert run(["batch", "anatomy", "-o", str(tmp_path)]) == 130
    out, err = capsys.readouterr()
    assert out == "" and err.strip().startswith("interrupted: ") and "--resume" in err


@pytest.mark.parametrize("late", ["print_summary", "write_result"])
def test_while_the_result_is_written(
    late: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    module = "moetui.suites" if late == "write_result" else "moetui.cli.batch_table"
    monkeypatch.setattr(f"{module}.{late}", pressed)
    monkeypatch.setattr("moetui.suites.run_prepared", lambda *_, **__: None)
    monkeypatch.setattr("moetui.cli.batch_table.print_summary", lambda _: None, raising=True)
    monkeypatch.setattr(f"{module}.{late}", pressed)
    assert run(["batch", "anatomy", "-o", str(tmp_path), "--progress", "off"]) == 130
    err = capsys.readouterr().err
    assert f"interrupted: finished cells are in {tmp_path}/.cells" in err
    assert "hint: the same command with --resume goes on from there" in err


def test_a_file_that_ends_too_early_is_no_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(*_: Any, **__: Any) -> None:
        raise EOFError("ended before the end-of-stream marker")

    monkeypatch.setattr("moetui.cli.batch_plan.chosen", short)
    assert run(["batch", "anatomy"]) == 1
    assert "error: EOFError: ended before the end-of-stream" in capsys.readouterr().err


def test_an_interrupted_write_leaves_no_part_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", pressed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "result.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_click_still_makes_an_abort_of_it() -> None:
    """What `run` relies on to tell an interrupt from a file that ended."""

    @click.command()
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(click.Abort) as found:
        command.main([], standalone_mode=False)
    assert isinstance(found.value.__cause__, KeyboardInterrupt)
