"""`moetui doctor`: every check on its own, and the whole command without a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from moetui.cli import doctor as command
from moetui.cli import doctor_machine as machine
from moetui.cli import doctor_terminal as terminal
from moetui.cli import run
from moetui.cli.doctor_report import Check, Report, as_text
from moetui.demo import checkpoint
from moetui.errors import RunFailedError
from moetui.model import health
from tests.model import zoo

NAMES = [
    "terminal", "colours", "characters", "tmux", "clipboard", "settings", "versions", "mlx",
    "BLAS", "memory", "models", "demo",
]  # fmt: skip


def moetui(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as another process, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "moetui", *arguments],
        env={**os.environ, **variables}, cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_where_the_demo_works_the_exit_code_is_0_and_the_json_has_its_type(tmp_path: Path) -> None:
    done = moetui("doctor", "--format", "json", HOME=str(tmp_path), HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    report = msgspec.json.decode(done.stdout, type=Report, strict=True)
    assert report.schema_version == 1 and report.works
    names = [check.name for check in report.checks]
    assert [name.replace("speed", "BLAS") for name in names] == NAMES
    facts = {check.name: check.facts for check in report.checks}
    assert facts["models"] == {
        "path": str(tmp_path / "hf" / "hub"), "models": 0, "size": 0,
    }  # fmt: skip
    assert facts["demo"]["tokens"] == 4
    assert facts["settings"]["exists"] is False
    by_name = {check.name: check for check in report.checks}
    assert by_name["terminal"].status == "attention"
    assert by_name["demo"].status == "ok"


def test_settings_that_stop_the_explorer_are_a_problem_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("theme = 3\n")
    done = moetui("doctor", MOETUI_SETTINGS=str(path), HOME=str(tmp_path))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("problem"))
    assert "settings" in lines[at] and str(path) in lines[at] and "theme cannot be 3" in lines[at]
    assert lines[at + 1].strip().startswith("→ ")
    assert sum(line.startswith(("ok", "attention", "problem")) for line in lines) == len(NAMES)
    assert lines[-1] == "moetui does not work here yet: see settings"


def test_keys_that_stop_the_explorer_are_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[keys]\nquit = "z"\n')
    monkeypatch.setenv("MOETUI_SETTINGS", str(path))
    check = command._made("settings", machine.settings, "problem")
    assert check.status == "problem" and "z" in check.found
    path.write_text('[keys]\nquit = "ctrl+x"\n')
    assert command._made("settings", machine.settings, "problem").status == "ok"


def test_a_check_that_fails_says_so_and_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Check:
        raise ZeroDivisionError("of a kind nobody thought of")

    def passes(name: str) -> Callable[[], Check]:
        return lambda: Check(name=name, status="ok", found="fine")

    for name in ("versions", "backend", "speed", "memory", "cache", "self_test", "settings"):
        monkeypatch.setattr(machine, name, passes(name))
    monkeypatch.setattr(terminal, "clipboard", fails)
    assert run(["doctor"]) == 0
    out = capfd.readouterr().out
    assert "attention  clipboard   could not be looked at: ZeroDivisionError" in out
    assert out.splitlines()[-1] == "moetui works here"
    monkeypatch.setattr(machine, "self_test", fails)
    assert run(["doctor"]) == 1
    out = capfd.readouterr().out
    assert "problem    demo        could not be looked at: ZeroDivisionError" in out


def test_a_line_holds_status_name_finding_and_below_it_the_advice() -> None:
    check = Check(name="BLAS", status="attention", found="slow", advice="do this")
    assert as_text(check).splitlines() == [
        "attention  BLAS        slow",
        "                       → do this",
    ]
    assert "→" not in as_text(Check(name="BLAS", status="ok", found="fast"))


# -- what mlx can do, in a process of its own ---------------------------------------------------


def test_the_device_is_the_one_that_mlx_names() -> None:
    import mlx.core as mx

    found = health.measure(health.Device)
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    assert (found.backend == "cpu") is on_cpu
    assert found.name == mx.device_info()["device_name"]


def test_what_is_expected_of_the_backend_without_mlx_is_so() -> None:
    from moetui.model.backend import backend, expected_backend

    assert expected_backend() == backend()


def probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> None:
    """Put a broken mlx in the way of the processes that `measure` starts."""
    package = tmp_path / "mlx"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "core.py").write_text(program)
    # The path of moetui itself comes first: it holds no mlx, so this one is found.
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("raise ImportError('libcuda.so.1: cannot open')", "libcuda.so.1: cannot open"),
        (f"import os; os.kill(os.getpid(), {signal.SIGILL.value})", "SIGILL"),
        ("import os; os._exit(3)", "code 3"),
    ],
)
def test_an_mlx_that_does_not_start_is_a_reason_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, says: str
) -> None:
    probe(monkeypatch, tmp_path, program)
    with pytest.raises(RunFailedError) as caught:
        health.measure(health.Device)
    assert says in caught.value.message and caught.value.hint


def test_an_mlx_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probe(monkeypatch, tmp_path, "import time; time.sleep(600)")
    with pytest.raises(RunFailedError, match="no answer in 1 s"):
        health.measure(health.Device, patience_s=1.0)


# -- the single checks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "found", "status"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "16 million", "ok"),
        ({"TERM": "xterm-256color"}, "256", "ok"),
        ({"TERM": "xterm"}, "16", "attention"),
        ({"TERM": "dumb"}, "none", "attention"),
        ({}, "not known: TERM is not set", "ok"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "none: NO_COLOR is set (else 256)", "ok"),
    ],
)
def test_colours_are_those_that_the_environment_promises(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], found: str, status: str
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check = terminal.colours()
    assert (check.found, check.status) == (found, status)
    assert (check.advice is None) is (status == "ok")


@pytest.mark.parametrize(
    ("escape_time", "mouse", "term", "advice"),
    [
        ("500", "on", "tmux-256color", "set -s escape-time 10"),
        ("10", "off", "tmux-256color", "set -g mouse on"),
        ("10", "on", "screen", 'set -g default-terminal "tmux-256color"'),
        ("10", "on", "tmux-256color", None),
    ],
)
def test_tmux_is_asked_for_what_slows_or_hides_keys_and_mouse(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    escape_time: str,
    mouse: str,
    term: str,
    advice: str | None,
) -> None:
    fake = tmp_path / "tmux"
    answers = {"escape-time": escape_time, "mouse": mouse, "-V": "tmux 3.4"}
    cases = "".join(f"*{name}) echo {value};; " for name, value in answers.items())
    fake.write_text(f'#!/bin/sh\ncase "$*" in {cases}esac\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMUX", "somewhere,1,0")
    monkeypatch.setenv("TERM", term)
    check = terminal.tmux()
    assert check.found == f"tmux 3.4: Esc waits {escape_time} ms, mouse {mouse}"
    assert check.advice == (f"in ~/.tmux.conf: {advice}" if advice else None)
    assert (check.status == "ok") is (advice is None)


def test_the_cache_is_counted_and_damage_in_it_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    zoo.cached(tmp_path, "someone/one", checkpoint("demo"))
    zoo.cached(tmp_path, "someone/two", checkpoint("demo-dense"))
    (tmp_path / "datasets--someone--data" / "snapshots").mkdir(parents=True)
    sizes = [
        path.stat().st_size
        for name in ("demo", "demo-dense")
        for path in checkpoint(name).iterdir()
        if path.is_file()
    ]
    check = machine.cache()
    assert (check.status, check.advice) == ("ok", None)
    assert check.facts == {"path": str(tmp_path), "models": 2, "size": sum(sizes), "damaged": 0}
    (tmp_path / "models--someone--three").mkdir()
    check = machine.cache()
    assert check.status == "attention" and "1 damaged" in check.found and check.advice


def test_memory_is_what_the_kernel_says() -> None:
    if sys.platform != "linux":
        pytest.skip("told from /proc/meminfo, which only Linux has")
    kilobytes = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
    }
    facts = machine.memory().facts
    assert facts["total"] == kilobytes["MemTotal"] * 1024
    assert isinstance(facts["available"], int)
    assert 0 < facts["available"] <= kilobytes["MemTotal"] * 1024


def test_packages_that_are_too_old_or_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"mlx": "0.32.4", "mlx-lm": "0.30.1", "transformers": None, "textual": "8.2.8"}
    monkeypatch.setattr(machine, "_version", versions.get)
    asked = ["mlx[cpu]>=0.32; sys_platform == 'linux'", "mlx-lm>=0.32", "textual>=8.2"]
    monkeypatch.setattr(machine.metadata, "requires", lambda name: asked)
    check = machine.versions()
    assert check.status == "problem"
    assert check.advice == "pip install -U mlx-lm transformers"
    assert "transformers missing" in check.found
    assert json.loads(msgspec.json.encode(check.facts))["mlx-lm"] == "0.30.1"


@pytest.mark.parametrize(
    ("loaded", "status", "says"),
    [
        (None, "attention", "the reference BLAS of mlx's wheel: 4.5 GFLOP/s"),
        ("libmkl_rt.so.3", "ok", "libmkl_rt.so.3: 4.5 GFLOP/s"),
    ],
)
def test_a_slow_blas_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, loaded: str | None, status: str, says: str
) -> None:
    monkeypatch.setattr(health, "measure", lambda what: health.Speed(4.5, loaded))
    monkeypatch.setattr(machine, "_device", lambda: health.Device("cpu", "a processor", None, None))
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine, "machine", lambda: "x86_64")
    check = machine.speed()
    assert (check.name, check.status) == ("BLAS", status)
    assert says in check.found
    assert (check.advice is None) is (status == "ok")
    if check.advice is not None:
        assert check.advice.startswith("pip install -e '.[fast]'")
