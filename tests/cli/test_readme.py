"""README says what is so: its keys are the table's keys, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moetui import stats
from moetui.cli import run
from moetui.settings import Settings, load_settings
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
    assert {"trace", "batch", "models", "doctor"} <= shown
    for command in shown:
        assert run([command, "--help"]) == 0
        options = set(re.findall(rf"^moetui {command} .*", README, re.MULTILINE))
        named = {o for line in options for o in re.findall(r"(--[a-z-]+)", line.split("#")[0])}
        helped = capsys.readouterr().out
        assert all(option in helped for option in named)


def test_the_statistics_that_are_listed_are_public() -> None:
    rows = between("| of `moetui.stats` | what it answers |\n|---|---|\n", "\n\n").splitlines()
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert {"cold_experts", "belady", "mcnemar"} <= named <= set(stats.__all__)


def test_every_file_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", README)
    assert len(links) >= 5
    headings = re.findall(r"^#+ (.*)", README, re.MULTILINE)
    known = {"#" + heading.lower().replace(" ", "-") for heading in headings}
    assert [x for x in links if x not in known and not (ROOT / x).exists()] == []


def block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[0]


def test_the_settings_that_are_shown_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(block("toml"))
    settings = load_settings(path)
    assert settings.theme == "light" and settings.max_tokens == 64
    assert settings.model_folders == Settings().model_folders
    assert dict(settings.keys) == {"quit": "ctrl+x"}


def test_the_python_that_is_shown_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python"), "README.md", "exec"), {})
    assert (tmp_path / "run.moetrace").is_file()
    assert len(capsys.readouterr().out.splitlines()) == 20
