"""The models on this machine as the picker shows them: found in the background, a line each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content

from moetui.sizes import size_text
from moetui.tui.text import ELLIPSIS, fitted, plain

if TYPE_CHECKING:
    from moetui.model.inventory import FoundModel

_KIND, _SIZE, _GAP = 12, 8, 2
# Cells for the last column, which says whether it fits; more where there is room.
_VERDICT = 15
_DOT = " · "


class ModelSearch:
    """Looks for models on a thread of its own, as far as it has come in `found`.

    The thread is a daemon: leaving the explorer waits for no slow disk.
    """

    def __init__(self, find: Callable[[], Iterable[FoundModel]]) -> None:
        self.found: list[FoundModel] = []
        self.done = False
        self.failure: str | None = None
        self._find = find
        threading.Thread(target=self._run, name="moetui-models", daemon=True).start()

    def _run(self) -> None:
        try:
            for model in self._find():
                self.found.append(model)
        except Exception as error:  # the list is a convenience: names can be typed without it
            self.failure = f"{type(error).__name__}: {error}"
        self.done = True


def matching(names: Sequence[str], typed: str) -> list[str]:
    """The names that hold every word typed, in any case and order; all when none is typed."""
    words = typed.lower().split()
    return [name for name in names if all(word in name.lower() for word in words)]


def name_width(names: Sequence[str], width: int) -> int:
    """Cells for the names in lines of `width`: what the longest needs, if there is room for it."""
    longest = max((cell_len(plain(name)) for name in names), default=0)
    return min(longest, max(12, width - _KIND - _SIZE - _VERDICT - 3 * _GAP))


def row(name: str, model: FoundModel | None, room: int) -> Content:
    """One line: name in `room` cells, kind, size on disk, whether it fits; `model` is None while
    it is looked for."""
    gap = " " * _GAP
    named = (fitted(_shortened(plain(name), room), room), "bold")
    if model is None:
        return Content.assemble(named, gap, ("…", "$secondary"))
    style, verdict = _verdict(model)
    size = f"{size_text(model.disk_bytes):>{_SIZE}}"
    kind = f"{model.routing or '':<{_KIND}}"
    return Content.assemble(named, gap, kind, gap, (size, "$secondary"), gap, (verdict, style))


def about(model: FoundModel) -> Content:
    """What else there is to say of a model, or why it cannot be opened."""
    if model.obstacle is not None:
        return Content.styled(f"cannot be opened: {plain(model.obstacle)}", "$warning")
    facts = [plain(model.architecture or ""), f"{model.num_layers} layers"]
    if model.stored is not None:
        facts.append(plain(model.stored))
    if model.router_bits is not None:
        facts.append(f"router {model.router_bits}-bit")
    if model.memory is not None:
        size, context = size_text(model.memory.total), model.memory.context
        facts.append(f"about {size} of memory for {context:,} tokens")
    return Content.styled(_DOT.join(facts), "$secondary")


def _verdict(model: FoundModel) -> tuple[str, str]:
    """(style, text) of the last column."""
    if model.problem is not None:
        return "$error", plain(model.problem)
    if model.fits is None or model.memory is None:
        return "$secondary", "fits?"
    if not model.fits:
        return "$warning", f"needs {size_text(model.memory.total)}"
    return "$success", "fits"


def _shortened(name: str, room: int) -> str:
    """`name` without its middle where it is too long: models of a kind differ at the end."""
    if cell_len(name) <= room:
        return name
    end = room // 2
    return f"{name[: room - end - 1]}{ELLIPSIS}{name[-end:]}"
