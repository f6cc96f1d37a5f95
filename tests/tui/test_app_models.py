"""The model picker: what is on this machine, a line each, and nothing opened that cannot be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from moetui.demo import checkpoint
from moetui.model.inventory import FoundModel
from moetui.settings import Settings
from moetui.tui.models import matching
from moetui.tui.screens.choose import ModelDialog
from moetui.tui.screens.explorer import ExplorerScreen
from tests.model import zoo
from tests.tui.found import MODELS
from tests.tui.stage_app import Stage, staged


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The explorer finds `MODELS`."""
    monkeypatch.setattr(ExplorerScreen, "_find_models", lambda self: iter(MODELS))


async def opened(stage: Stage) -> ModelDialog:
    """The picker, with everything found in it."""
    await stage.press("escape", "o")
    dialog = stage.app.screen
    assert isinstance(dialog, ModelDialog)
    await stage.until(lambda: "looking" not in stage.text and "open now" in stage.text)
    return dialog


def names(dialog: ModelDialog) -> list[str]:
    options = dialog.query_one(OptionList)
    return [str(options.get_option_at_index(i).id) for i in range(options.option_count)]


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_every_model_is_a_line_that_says_whether_it_fits(size: tuple[int, int]) -> None:
    async with staged(size) as stage:
        dialog = await opened(stage)
        assert names(dialog) == [model.name for model in MODELS]
        lines = {
            name: next(line for line in stage.text.splitlines() if f" {name} " in line)
            for name in ("org/large", "org/small", "org/torn")
        }
        assert "MoE 128 × 8" in lines["org/small"] and "17.2 GB" in lines["org/small"]
        assert "fits" in lines["org/small"]
        assert "needs 62.0 GB" in lines["org/large"]
        assert "model.safete" in lines["org/torn"]
        assert "5 models" in stage.text


async def test_the_dialog_is_there_while_a_slow_disk_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()

    def slowly(self: ExplorerScreen) -> Iterator[FoundModel]:
        yield MODELS[0]
        assert go_on.wait(60)
        yield MODELS[3]

    monkeypatch.setattr(ExplorerScreen, "_find_models", slowly)
    async with staged() as stage:
        await stage.press("escape", "o")
        await stage.until(lambda: "looking for models" in stage.text and "fits" in stage.text)
        dialog = stage.app.screen
        assert isinstance(dialog, ModelDialog)
        assert names(dialog) == ["demo", "demo-dense"]
        await stage.press("down", "down")
        go_on.set()
        await stage.until(lambda: "org/small" in stage.text)
        assert dialog.query_one(OptionList).highlighted == 1  # the cursor stays where it was
        await stage.press("enter")
        assert stage.engine.calls[-1] == ("load", "demo-dense")


@pytest.mark.usefixtures("listed")
async def test_typing_filters_and_enter_opens_what_is_left() -> None:
    async with staged() as stage:
        dialog = await opened(stage)
        await stage.press(*"SMALL")
        assert names(dialog) == ["org/small"]
        assert "qwen3_moe · 48 layers · bf16 · router 16-bit" in stage.text
        await stage.press("enter")
        assert stage.engine.calls[-1] == ("load", "org/small")


@pytest.mark.usefixtures("listed")
async def test_letters_typed_in_the_list_filter_too() -> None:
    async with staged() as stage:
        dialog = await opened(stage)
        await stage.press("down", "down", *"org")
        assert names(dialog) == ["org/large", "org/small", "org/torn"]
        assert dialog.query_one(Input).value == "org"


@pytest.mark.usefixtures("listed")
async def test_a_name_that_is_not_listed_is_opened_as_typed() -> None:
    async with staged() as stage:
        await opened(stage)
        await stage.press(*"some/other", "enter")
        assert stage.engine.calls[-1] == ("load", "some/other")


@pytest.mark.usefixtures("listed")
async def test_a_folder_is_opened_as_typed_though_a_listed_name_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    async with staged() as stage:
        await opened(stage)
        await stage.press(*"small", "enter")
        assert stage.engine.calls[-1] == ("load", "small")


@pytest.mark.usefixtures("listed")
async def test_the_start_of_a_listed_name_opens_nothing_else() -> None:
    async with staged() as stage:
        dialog = await opened(stage)
        before = list(stage.engine.calls)
        await stage.press(*"org/s", "enter")
        assert stage.engine.calls == before
        assert dialog.query_one(OptionList).has_focus
        await stage.press("enter")
        assert stage.engine.calls[-1] == ("load", "org/small")


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("org/large", "it needs 62.0 GB of memory, and 13.0 GB are free"),
        ("org/torn", "model.safetensors is damaged [bold]or␛[2J truncated"),
    ],
)
@pytest.mark.parametrize("typed", [True, False])
async def test_what_cannot_be_opened_says_why_and_is_not_opened(
    name: str, why: str, typed: bool
) -> None:
    async with staged() as stage:
        dialog = await opened(stage)
        before = list(stage.engine.calls)
        if typed:
            await stage.press(*name, "enter")
        else:
            await stage.press("down", *["down"] * [m.name for m in MODELS].index(name), "enter")
        assert stage.app.screen is dialog
        assert stage.engine.calls == before
        assert stage.toasts == [f"{name} cannot be opened: {why}"]
        assert f"cannot be opened: {why}" in stage.text
        assert "\x1b" not in stage.text
        await stage.press("escape")
        assert stage.app.screen is stage.screen


async def test_a_search_that_fails_leaves_the_names_that_can_be_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(self: ExplorerScreen) -> Iterator[FoundModel]:
        yield MODELS[0]
        raise PermissionError("the disk is gone")

    monkeypatch.setattr(ExplorerScreen, "_find_models", fails)
    async with staged() as stage:
        await opened(stage)
        assert "PermissionError: the disk is gone" in stage.text
        await stage.press(*"org/name", "enter")
        assert stage.engine.calls[-1] == ("load", "org/name")


async def test_the_models_of_the_machine_are_the_ones_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    zoo.cached(tmp_path / "hub", "someone/tiny-moe", checkpoint("demo"))
    mine = zoo.placed(tmp_path / "mine" / "model")
    settings = Settings(model_folders=(tmp_path / "mine",))
    async with staged(settings=settings) as stage:
        dialog = await opened(stage)
        assert names(dialog) == ["demo", "demo-dense", "someone/tiny-moe", str(mine)]
        assert stage.text.count("MoE 16 × 4") == 3
        assert stage.text.count("dense ") >= 1


async def test_the_memory_of_the_model_that_is_open_counts_as_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from moetui.model import inventory

    asked: list[int] = []

    def watched(folders: object, *, freed: int = 0) -> Iterator[FoundModel]:
        asked.append(freed)
        return iter(MODELS)

    monkeypatch.setattr(inventory, "find_models", watched)
    async with staged() as stage:
        await opened(stage)
        await stage.press("escape")
        stage.engine.ready()
        await stage.settle()
        await stage.press("o")
        await stage.until(lambda: len(asked) == 2)
    assert asked == [0, 84_000_000]


def test_every_word_typed_must_be_in_a_name() -> None:
    listed = ["mlx-community/OLMoE-4bit", "mlx-community/Qwen3-4bit", "Qwen/Qwen3"]
    assert matching(listed, "qwen 4BIT") == ["mlx-community/Qwen3-4bit"]
    assert matching(listed, "") == listed
    assert matching(listed, "llama") == []
