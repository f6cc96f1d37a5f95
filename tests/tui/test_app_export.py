"""What is exported is what is on the screen, whole, and over no file."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moetui.trace import to_json, trace_document
from moetui.tui.export import ExportError, write_new
from moetui.tui.layout import ORDER
from tests.tui.stage_app import Stage, staged

NOON = datetime(2026, 1, 2, 12, 0, 0)


async def exported(stage: Stage, key: str, folder: Path, suffix: str = "json") -> Path:
    await stage.press(key)
    for _ in range(50):
        if found := sorted(folder.glob(f"moetui-*.{suffix}")):
            return found[0]
        await stage.settle()
    raise AssertionError(f"nothing exported; toasts: {stage.toasts}")


def as_json(view: msgspec.Struct | None) -> Any:
    return msgspec.json.decode(msgspec.json.encode(view))


async def test_e_writes_what_the_pane_draws(tmp_path: Path) -> None:
    async with staged(export_dir=tmp_path, panes=None) as stage:
        await stage.prompted()
        await stage.press("2", "left", "down")
        path = await exported(stage, "e", tmp_path)
        assert re.fullmatch(r"moetui-why-\d{8}-\d{6}\.json", path.name)
        document = json.loads(path.read_text())
        view = stage.pane("why").view
        assert view is not None
        assert document["view"] == as_json(view)
        assert document["cursor"] == {
            "token": 4, "layer": 1, "expert": stage.session.cursor.expert,
        }  # fmt: skip
        assert (document["pane"], document["mode"], document["schema_version"]) == (
            "why", "token", 1,
        )  # fmt: skip
        await stage.settle()
        assert stage.toasts == [str(path)]


async def test_screen_export_holds_every_pane_and_the_trace_of_all_rows(tmp_path: Path) -> None:
    async with staged((80, 24), export_dir=tmp_path, panes=None) as stage:
        await stage.prompted()
        stage.engine.step(4)
        await stage.settle()
        path = await exported(stage, "E", tmp_path)
        document = json.loads(path.read_text())
        recording = stage.engine.snapshot().recording
        assert recording is not None
        assert document["trace"] == json.loads(to_json(trace_document(recording.trace(10))))
        assert document["trace"]["tokens"] == list(stage.engine.whole.tokens[:10])
        assert set(document["panes"]) == set(ORDER)
        for name in ORDER:
            stage.screen._focus_pane(ORDER.index(name) + 1)
            await stage.settle()
            assert document["panes"][name] == as_json(stage.pane(name).view), name


async def test_a_paused_view_exports_what_it_shows(tmp_path: Path) -> None:
    async with staged(export_dir=tmp_path) as stage:
        await stage.prompted()
        await stage.press("space")
        stage.engine.step(5)
        path = await exported(stage, "E", tmp_path)
        document = json.loads(path.read_text())
        assert len(document["trace"]["tokens"]) == 6
        assert document["panes"]["map"]["rows"] == 6


async def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    async with staged(export_dir=tmp_path) as stage:
        await stage.press("e", "E")
        assert stage.toasts == [
            "nothing to export: no prompt has been run",
            "nothing to export: no model is open",
        ]
        assert list(tmp_path.iterdir()) == []


async def test_a_dense_model_exports_its_trace(tmp_path: Path) -> None:
    async with staged(export_dir=tmp_path, panes=None, T=6, moe_layers=()) as stage:
        await stage.prompted()
        path = await exported(stage, "E", tmp_path)
        document = json.loads(path.read_text())
        assert document["trace"]["layers"] == []
        assert document["panes"]["lens"] is not None


async def test_a_folder_that_cannot_be_written_is_told_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "[bold]file").write_text("in the way")
    async with staged(export_dir=tmp_path / "[bold]file") as stage:
        await stage.prompted()
        await stage.press("E")
        await stage.pilot.pause(0.3)
        (toast,) = stage.toasts
        assert "[bold]file" in toast
        assert "export_dir" in toast
        assert stage.app.is_running


async def test_the_screenshot_is_a_picture(tmp_path: Path) -> None:
    async with staged(export_dir=tmp_path) as stage:
        await stage.prompted()
        path = await exported(stage, "s", tmp_path, "svg")
        assert re.fullmatch(r"moetui-screen-\d{8}-\d{6}\.svg", path.name)
        assert path.read_text().lstrip().startswith("<svg")


async def test_y_copies_the_value_and_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyperclip

    copied: list[str] = []
    async with staged() as stage:
        await stage.press("y")
        assert stage.toasts == ["nothing to copy: run a prompt first"]
        await stage.prompted()
        monkeypatch.setattr(pyperclip, "copy", copied.append)
        await stage.press("y")
        whole, expert = stage.engine.whole, stage.session.cursor.expert
        weight = float(whole.expert_weights[5, 0, 0])
        (value,) = copied
        assert value.startswith(f"token 5 {whole.tokens[5]!r} layer 0 expert {expert} logit ")
        assert value.endswith(f" weight {weight:.6g}")
        assert "system's clipboard" in stage.toasts[-1]

        def missing(text: str) -> None:
            raise pyperclip.PyperclipException("no tool")

        monkeypatch.setattr(pyperclip, "copy", missing)
        await stage.press("right_square_bracket", "y")
        assert "OSC 52" in stage.toasts[-1]
        assert stage.app.clipboard.startswith("token 5 ")


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    names = [write_new(tmp_path, "map", "json", b"%d" % n, NOON).name for n in range(3)]
    assert names == [
        "moetui-map-20260102-120000.json",
        "moetui-map-20260102-120000-2.json",
        "moetui-map-20260102-120000-3.json",
    ]
    assert [(tmp_path / name).read_bytes() for name in names] == [b"0", b"1", b"2"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_system_without_links_works_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    first = write_new(tmp_path, "map", "json", b"a", NOON)
    second = write_new(tmp_path, "map", "json", b"b", NOON)
    assert (first.read_bytes(), second.read_bytes()) == (b"a", b"b")
    assert len(list(tmp_path.iterdir())) == 2


def test_exports_have_the_rights_of_any_new_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"")
    path = write_new(tmp_path, "map", "json", b"", NOON)
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ExportError, match="cannot write to"):
        write_new(tmp_path, "map", "json", b"", NOON)
