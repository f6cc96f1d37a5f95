"""Which panes are on the screen, and where: a pure function of the room there is.

Panes stand in slots. A slot shows one of its candidates; where there is room for all, every slot
has one candidate, and where there is not, the numbers of the rest stand in the tab line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The numbers on the screen: the three linked panes (row = layer) first, from left to right.
ORDER = (
    "map",
    "why",
    "lens",
    "detail",
    "cold",
    "tokens",
    "compare",
    "what_if",
    "suites",
    "generation",
    "dossier",
)
TOKENS = "tokens"
WHAT_IF = "what_if"
SUITES = "suites"
GENERATION = "generation"
DOSSIER = "dossier"
# The pane with something to say of a model without routers.
DENSE = "lens"
COLUMNS = 12

_MIN_WIDTH, _MIN_HEIGHT = 60, 16
_TWO_COLUMNS, _THREE_COLUMNS = 100, 160
_TWO_ROWS, _ROOMY = 32, 30
# A linked pane needs its border, a heading and one row for each layer; below it stay rows enough
# for the panes that list things.
_LINKED_EXTRA = 5
_MIN_LINKED, _MIN_BELOW = 9, 10

Slots = tuple[tuple[str, ...], ...]
_MAP, _WHY, _LENS, _DETAIL, _COMPARE = (
    (name,) for name in ("map", "why", "lens", "detail", "compare")
)
# These share the slot of the cold experts: whichever was asked for last.
_COLD = ("cold", WHAT_IF, GENERATION, DOSSIER)
# columns, rows → candidates of every slot and the columns (of 12) it spans.
_SLOTS: dict[tuple[int, int], tuple[Slots, tuple[int, ...]]] = {
    (1, 1): ((_MAP + _WHY + _LENS + _DETAIL + _COLD + _COMPARE,), (12,)),
    (1, 2): ((_MAP, _WHY + _LENS + _DETAIL + _COLD + _COMPARE), (12, 12)),
    (2, 1): ((_MAP, _WHY + _LENS + _DETAIL + _COLD + _COMPARE), (6, 6)),
    (2, 2): ((_MAP, _WHY, _LENS, _DETAIL + _COLD + _COMPARE), (6, 6, 6, 6)),
    (3, 1): ((_MAP, _WHY + _COMPARE, _LENS + _DETAIL + _COLD), (5, 4, 3)),
    # 5 of 12 columns of a 200-column terminal show 64 experts one by one.
    (3, 2): ((_MAP, _WHY, _LENS, _DETAIL, _COLD + _COMPARE), (5, 4, 3, 6, 6)),
}


@dataclass(frozen=True)
class Plan:
    """Where things stand.

    panes: the panes shown, in reading order; spans: the columns (of 12) each takes.
    rows: heights of the rows of panes, None for "what is left". framed: whether the panes have
    a border; roomy: whether prompt and token strip have one too. tokens_height: rows of the token
    strip; None when it has the whole space.
    """

    panes: tuple[str, ...]
    spans: tuple[int, ...]
    rows: tuple[int | None, ...]
    framed: bool
    roomy: bool
    tokens_height: int | None

    @property
    def hidden(self) -> tuple[str, ...]:
        """The panes that are not on the screen, by number."""
        shown = (*self.panes, TOKENS)
        return tuple(pane for pane in ORDER if pane not in shown)


def too_small(width: int, height: int) -> bool:
    """Whether the terminal cannot hold the explorer."""
    return width < _MIN_WIDTH or height < _MIN_HEIGHT


def plan(
    width: int,
    height: int,
    *,
    recent: Sequence[str] = (),
    maximised: str | None = None,
    layers: int = 0,
    dense: bool = False,
) -> Plan:
    """Place the panes in `width` x `height` cells.

    recent: panes by how lately the user asked for them, the latest first: a slot shows the one
    of its candidates that was asked for last. layers: decoder layers of the model. dense: it has
    no routers, so that one pane has all the room: four others would only say so side by side.
    """
    roomy = height >= _ROOMY
    tokens_height = _tokens_height(height)
    if maximised == TOKENS:
        return Plan((), (), (), roomy, roomy, None)
    columns = 1 if width < _TWO_COLUMNS else 2 if width < _THREE_COLUMNS else 3
    rows = 1 if height < _TWO_ROWS else 2
    # Pages to read: beside others their tables would be torn apart.
    pages = (SUITES,) if (columns, rows) == (3, 2) else (SUITES, DOSSIER)
    if maximised is None and recent and recent[0] in pages:
        maximised = recent[0]
    if maximised is None and dense:
        maximised = _chosen(_LENS + _MAP + _WHY + _DETAIL + _COLD + _COMPARE, recent)
    if maximised is not None:
        return Plan((maximised,), (COLUMNS,), (None,), roomy, roomy, tokens_height)
    slots, spans = _SLOTS[columns, rows]
    panes = tuple(_chosen(slot, recent) for slot in slots)
    heights: tuple[int | None, ...] = (None,)
    if rows == 2:
        heights = (_linked_height(height - tokens_height - 6, layers), None)
    return Plan(panes, spans, heights, roomy or len(panes) > 1, roomy, tokens_height)


def _chosen(slot: Sequence[str], recent: Sequence[str]) -> str:
    return next((pane for pane in recent if pane in slot), slot[0])


def _tokens_height(height: int) -> int:
    if height < _ROOMY:
        return 2
    return 5 if height >= 50 else 4


def _linked_height(room: int, layers: int) -> int:
    wanted = max(_MIN_LINKED, layers + _LINKED_EXTRA) if layers else room // 2
    return max(_MIN_LINKED, min(wanted, room - _MIN_BELOW))
