"""README says what is so: its keys are the table's keys, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moetui.cli import run
from moetui.tui.keys import keys_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def between(start: str, end: str) -> str:
    return README.split(start)[1].split(end)[0]


def test_the_keys_are_those_of_the_explorer() -> None:
    listed = between("<!-- keys -->\n", "<!-- /keys -->").splitlines()[2:]
    assert listed == [f"| {group} | `{keys}` | {says} |" for group, keys, says in keys_table()]


def test_every_command_that_is_shown_exists(capsys: pytest.CaptureFixture[str]) -> None:
    shown = set(re.findall(r"^moetui (trace|batch|[a-z]+)\b(?!/)", README, re.MULTILINE))
    shown -= {"mlx"}  # the owner of a model, not a command
    assert {"trace", "batch"} <= shown
    for command in shown:
        assert run([command, "--help"]) == 0
        options = set(re.findall(rf"^moetui {command} .*", README, re.MULTILINE))
        named = {o for line in options for o in re.findall(r"(--[a-z-]+)", line.split("#")[0])}
        helped = capsys.readouterr().out
        assert all(option in helped for option in named)


def test_every_file_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", README)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []
