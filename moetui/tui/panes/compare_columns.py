"""The columns of the compare pane, and which of them fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moetui.analyses.compare_contexts import ComparedContexts, LayerPair, LensPair, Used
from moetui.stats import Statistic
from moetui.tui.panes.pane import Styles
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.gauge import probability
from moetui.tui.widgets.lines import Line, Span

# More experts than this have no plot.
_MOST_PLOTTED = 12
_TOKEN, _LONGEST_TOKEN = 6, 14
_CHANGES, _LONGEST_CHANGES = 16, 60
_MARKS = {"above": "↑", "below": "↓", "inside": " ", None: " "}
_OUTSIDE = ("above", "below")


class Row(NamedTuple):
    """What is known of one decoder layer: None where it does not route, or the lens is missing."""

    routing: LayerPair | None
    lens: LensPair | None


@dataclass(frozen=True)
class Column:
    """A column of `width` cells, the gap before it among them; `cell` fills them for one layer."""

    head: str
    width: int
    cell: Callable[[Row, Styles], Line]


def columns(view: ComparedContexts, width: int) -> list[Column]:
    """The columns that fit in `width` cells, the most needed kept; spare room goes to texts."""
    found = _candidates(view)
    kept: list[str] = []
    room = width
    for name in _NEEDED:
        if name in found and found[name].width <= room:
            kept.append(name)
            room -= found[name].width
    shown = {name: found[name] for name in found if name in kept}
    if "lens" in shown:
        more = min(room // 2, _LONGEST_TOKEN - _TOKEN)
        shown["lens"] = _lens(_TOKEN + more)
        room -= 2 * more
    if "changes" in shown:
        shown["changes"] = _changes(min(_CHANGES + room, _LONGEST_CHANGES))
    return list(shown.values())


# The most needed first; they stand in the order of `_candidates`.
_NEEDED = (
    "shared", "lens", "chance", "variation", "plot", "place", "aligned", "changes", "overlap",
)  # fmt: skip


def _candidates(view: ComparedContexts) -> dict[str, Column]:
    """Every column that has something to say of `view`, at its least width."""
    found: dict[str, Column] = {}
    if view.layers:
        most = max(len(p.both) + len(p.lost) for p in view.layers)
        most = max(most, *(len(p.both) + len(p.gained) for p in view.layers))
        found["shared"] = Column(" shared", 7, _shared)
        found["chance"] = Column("  by chance", 11, _chance)
        if most <= _MOST_PLOTTED:
            found["plot"] = Column(f" 0{most:>{most}}", most + 2, _plot(most))
        found["overlap"] = _statistic("Jaccard", lambda pair: pair.overlap)
        found["variation"] = _statistic("weights TV", lambda pair: pair.variation)
        if view.alignment.rows_a:
            head = f"{len(view.alignment.rows_a)} aligned"
            found["aligned"] = _statistic(head, lambda pair: pair.aligned)
    if view.lens:
        found["lens"] = _lens(_TOKEN)
        found["place"] = Column(" A in B", 7, _place(view.listed))
    if view.layers:
        found["changes"] = _changes(_CHANGES)
    return found


def _shared(row: Row, paint: Styles) -> Line:
    """Experts that ran at both, of those that ran at A; an arrow where that is beyond chance."""
    pair = row.routing
    if pair is None:
        return ((" dense ", paint.faint),)
    count = f"{len(pair.both)}/{len(pair.both) + len(pair.lost)}"
    style = paint.head if pair.level in _OUTSIDE else paint.text
    return ((f"{count:>6}{_MARKS[pair.level]}", style),)


def _chance(row: Row, paint: Styles) -> Line:
    """Mean and band of two independent choices."""
    if row.routing is None:
        return ((" " * 11, paint.text),)
    shared = row.routing.shared
    band = f"{shared.null_low or 0:.0f}–{shared.null_high or 0:.0f}"
    return ((f"{shared.null_mean or 0:>6.1f} {band:<4}", paint.muted),)


def _plot(most: int) -> Callable[[Row, Styles], Line]:
    """0 … k shared experts on a line: the band drawn through, ● outside of it and ○ inside."""

    def cell(row: Row, paint: Styles) -> Line:
        pair = row.routing
        if pair is None:
            return ((" " * (most + 2), paint.text),)
        low, high = int(pair.shared.null_low or 0), int(pair.shared.null_high or 0)
        spans: list[Span] = [(" ", paint.text)]
        for count in range(most + 1):
            if count == len(pair.both):
                outside = pair.level in _OUTSIDE
                spans.append(("●", paint.ramp.strong) if outside else ("○", paint.text))
            else:
                spans.append(("━" if low <= count <= high else "·", paint.faint))
        return tuple(spans)

    return cell


def _statistic(head: str, of: Callable[[LayerPair], Statistic]) -> Column:
    """A number with its chance level in brackets."""

    def cell(row: Row, paint: Styles) -> Line:
        found = of(row.routing) if row.routing is not None else Statistic()
        if found.value is None:
            return ((f"{'—' if row.routing else '':>6}{'':7}", paint.faint),)
        chance = "" if found.null_mean is None else f"({probability(found.null_mean)})"
        return ((f"  {probability(found.value)} ", paint.text), (f"{chance:<6}", paint.faint))

    return Column(f"  {head}", 13, cell)


def _lens(width: int) -> Column:
    """The top tokens of A and B."""

    def cell(row: Row, paint: Styles) -> Line:
        if row.lens is None:
            return ((" " * (2 * width + 5), paint.text),)
        style = paint.text if row.lens.same else paint.head
        return (
            (f"  {plain(row.lens.a.text, width)}", paint.text),
            (" = " if row.lens.same else " ≠ ", paint.muted),
            (plain(row.lens.b.text, width), style),
        )

    return Column(f"  {fitted('lens A', width)}   {fitted('B', width)}", 2 * width + 5, cell)


def _place(listed: int) -> Callable[[Row, Styles], Line]:
    """The place of A's answer among B's guesses."""

    def cell(row: Row, paint: Styles) -> Line:
        if row.lens is None:
            return ((" " * 7, paint.text),)
        place = f">{listed}" if row.lens.a_in_b is None else str(row.lens.a_in_b)
        return ((f"{place:>6} ", paint.head if place == "1" else paint.muted),)

    return cell


def _changes(width: int) -> Column:
    """Experts that were lost and gained, by weight, as many as fit."""

    def cell(row: Row, paint: Styles) -> Line:
        if row.routing is None:
            return ()
        lost, gained = _named("−", row.routing.lost), _named("+", row.routing.gained)
        return ((fitted("  " + " ".join((*lost, *gained)), width), paint.muted),)

    return Column(fitted("  −lost +gained", width), width, cell)


def _named(sign: str, experts: Sequence[Used]) -> list[str]:
    return [f"{sign}{used.expert}" for used in experts]
