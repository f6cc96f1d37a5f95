"""The installed command in a real terminal, on the demo model, against the command line.

What stands on the screen, what `E` exports and what `moetui trace` prints are three ways to the
same numbers; this test takes all three and compares them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moetui.suites import result_json, write_result
from tests.builders import make_trace
from tests.suites.sample import make_result

PROMPT = "The capital of France is"
PATIENCE_S = 120.0
COLUMNS, LINES = 120, 40
# Fields of a trace that the explorer and the command line must agree on, row by row.
BY_ROW = (
    "tokens", "token_kinds", "token_ids", "router_logits", "expert_ids", "expert_weights",
    "seed_ratio", "completeness",
)  # fmt: skip


def tmux_or_skip() -> str:
    found = shutil.which("tmux")
    if found is None:
        if os.environ.get("MOETUI_REQUIRE_TMUX") == "1":
            pytest.fail("tmux is not installed, and MOETUI_REQUIRE_TMUX=1 demands this test")
        pytest.skip("tmux is not installed")
    return found


class Terminal:
    """A tmux server of its own, so that no other session is seen or touched."""

    def __init__(self, tmux: str, home: Path) -> None:
        self._tmux = [tmux, "-L", f"moetui-{uuid.uuid4().hex[:8]}", "-f", os.devnull]
        self.home = home

    def start(self, command: str) -> None:
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        self._call("new-session", "-d", *size, "-c", str(self.home), "sh", "-c", command)

    def press(self, *keys: str) -> None:
        self._call("send-keys", *keys)

    def type(self, text: str) -> None:
        self._call("send-keys", "-l", text)

    def screen(self) -> str:
        return self._call("capture-pane", "-p")

    def wait(self, what: str, seen: Callable[[str], Any]) -> Any:
        """What `seen` finds on the screen, as soon as it finds something."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if found := seen(self.screen()):
                return found
            time.sleep(0.1)
        raise AssertionError(f"no {what} after {PATIENCE_S:.0f} s:\n{self.screen()}")

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], check=True, capture_output=True, text=True, timeout=30
        )
        return done.stdout


def environment(home: Path) -> dict[str, str]:
    """The environment of a machine where moetui was never used."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": str(home), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}


def moetui_command() -> Path:
    return Path(sys.executable).parent / "moetui"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmux_or_skip(), tmp_path)
    yield opened
    opened.close()


def in_environment(home: Path, command: str) -> str:
    pairs = " ".join(f"{name}={shlex.quote(v)}" for name, v in environment(home).items())
    return f"env -i {pairs} {command}"


def chosen_on_screen(screen: str) -> list[int]:
    """The experts that the layer pane lists as chosen, best first: rank, expert, logit, …"""
    lines = screen.splitlines()
    top = next(y for y, line in enumerate(lines) if "4 Layer detail ─" in line)
    left = lines[top].index("4 Layer detail")
    pane = [line[left - 3 :] for line in lines[top + 1 :]]
    found = [re.match(r"^[│ ▶]*(\d+)\s+E(\d+)\s+-?\d+\.\d+\s", line) for line in pane]
    return [int(match[2]) for match in found if match]


def measured_on_screen(screen: str) -> tuple[str, str] | None:
    """How many controls KL exceeds, and its p, once all have been measured."""
    row = re.search(r"KL nats .* (\d+/15)\s+(\d\.\d{3}) ", screen)
    return (row[1], row[2]) if row and "15 controls exist" in screen else None


def cursor_on_screen(screen: str) -> tuple[int, int] | None:
    match = re.search(r"token (\d+) of \d+ .* · layer (\d+) · expert", screen)
    return (int(match[1]), int(match[2])) if match else None


def test_screen_export_and_command_line_agree(terminal: Terminal) -> None:
    home = terminal.home
    terminal.start(in_environment(home, str(moetui_command())) + "; echo exit=$?; sleep 600")
    terminal.wait("first run", lambda s: "READY" in s and cursor_on_screen(s))

    terminal.press("/")
    terminal.press("C-u")
    terminal.type(PROMPT)
    terminal.press("Enter")
    terminal.wait("run of the prompt", lambda s: "READY" in s and "France" in s.split("Tokens")[1])

    # Back to the prompt's last token, and a layer in the middle.
    rows = len(trace_of(home)["tokens"])
    terminal.press("Home")
    terminal.press(*["Right"] * (rows - 1), *["Down"] * 3)
    terminal.wait("cursor", lambda s: cursor_on_screen(s) == (rows - 1, 3))
    chosen = terminal.wait("chosen experts", chosen_on_screen)

    terminal.press("x")
    measured = terminal.wait("the controls of what-if", measured_on_screen)

    terminal.press("E")
    path = terminal.wait("export", lambda _: next(home.glob("moetui-screen-*.json"), None))
    document = json.loads(path.read_text("utf-8"))

    at = document["trace"]["layers"].index(3)
    assert chosen == document["trace"]["expert_ids"][rows - 1][at]
    assert document["cursor"]["token"] == rows - 1
    assert document["cursor"]["layer"] == 3
    # Nothing was kept to compare with, no result was opened and no dossier made.
    empty = {name for name, view in document["panes"].items() if not view}
    assert empty == {"compare", "dossier", "suites"}
    compare(document["trace"], trace_of(home), rows)
    assert document["panes"]["what_if"]["request"]["row"] == rows - 1
    kl = document["panes"]["what_if"]["kl"]
    assert len(kl["controls"]) == 15
    assert measured == (f"{kl['larger_than']}/15", f"{kl['statistic']['p']:.3f}")

    terminal.press("q")
    terminal.wait("end", lambda s: "exit=0" in s)


def trace_of(home: Path) -> dict[str, Any]:
    """What the command line says of the same prompt."""
    done = subprocess.run(
        [moetui_command(), "trace", "-m", "demo", "--max-tokens", "0", "-p", PROMPT],
        env=environment(home), cwd=home, check=True, capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def compare(screen: dict[str, Any], command: dict[str, Any], rows: int) -> None:
    """The prompt's rows of both traces are the same numbers, to the last digit."""
    assert screen["model"] == command["model"]
    assert screen["layers"] == command["layers"]
    assert len(screen["tokens"]) > rows  # the explorer went on generating
    for name in BY_ROW:
        assert screen[name][:rows] == command[name], name
    for name in ("values", "cancellation"):
        assert screen["shares"][name][:rows] == command["shares"][name], name
    here, there = screen["lens"], command["lens"]
    read = [i for i, position in enumerate(here["positions"]) if position < rows]
    assert [here["positions"][i] for i in read] == there["positions"]
    for name in ("token_ids", "logprobs", "answer_ids", "answer_rank", "answer_logprob"):
        assert [here[name][i] for i in read] == there[name], name


def test_quitting_while_the_model_loads_is_quick_and_clean(terminal: Terminal) -> None:
    terminal.start(in_environment(terminal.home, str(moetui_command())) + "; echo exit=$?; sleep 9")
    terminal.wait("first frame", lambda s: ("moetui" in s and "LOADING" in s) or "READY" in s)
    terminal.press("q")
    terminal.wait("end", lambda s: "exit=0" in s)


def test_a_folder_that_is_no_model_is_told_in_a_dialog(terminal: Terminal) -> None:
    (terminal.home / "empty").mkdir()
    command = in_environment(terminal.home, f"{moetui_command()} ./empty")
    terminal.start(command + "; echo exit=$?; sleep 600")
    terminal.wait("dialog", lambda s: "Choose another model" in s)
    assert "Traceback" not in terminal.screen()
    terminal.press("Escape")
    terminal.wait("explorer", lambda s: "Choose another model" not in s and "NO MODEL" in s)
    terminal.press("q")
    terminal.wait("end", lambda s: "exit=0" in s)


def test_a_result_opens_without_a_model_and_exports_itself(terminal: Terminal) -> None:
    result = make_result()
    write_result(result, terminal.home / "result.json")
    command = in_environment(terminal.home, f"{moetui_command()} open result.json")
    terminal.start(command + "; echo exit=$?; sleep 600")
    terminal.wait("result", lambda s: "9 Suites" in s and "NO MODEL" in s and "Who decides?" in s)
    terminal.press("Right", "Right")
    distance = result.measures[2].statistic
    numbers = f"{distance.value:.3f}", f"[{distance.null_low:.3f}, {distance.null_high:.3f}]"
    terminal.wait("numbers", lambda s: all(number in s for number in numbers))
    terminal.press("e")
    path = terminal.wait("export", lambda _: next(terminal.home.glob("moetui-suites-*.json"), None))
    document = json.loads(path.read_text("utf-8"))
    assert document["view"] == json.loads(result_json(result))
    terminal.press("q")
    terminal.wait("end", lambda s: "exit=0" in s)


def test_a_saved_trace_opens_without_a_model_and_says_what_it_cannot_do(
    terminal: Terminal,
) -> None:
    trace = make_trace(12, 6, prompt_tokens=5)
    trace.save(terminal.home / "run.moetrace")
    command = in_environment(terminal.home, f"{moetui_command()} open run.moetrace")
    terminal.start(command + "; echo exit=$?; sleep 600")
    terminal.wait("trace", lambda s: "saved trace" in s and cursor_on_screen(s) == (11, 0))
    terminal.press("Home", "Right", "Down")
    terminal.wait("cursor", lambda s: cursor_on_screen(s) == (1, 1))
    chosen = terminal.wait("chosen experts", chosen_on_screen)
    assert chosen == trace.expert_ids[1, 1].tolist()
    terminal.press("x")
    terminal.wait("refusal", lambda s: "a saved trace cannot" in s and "press o to open" in s)
    terminal.press("Escape")
    terminal.wait("explorer", lambda s: "Choose another model" not in s)
    terminal.press("q")
    terminal.wait("end", lambda s: "exit=0" in s)
