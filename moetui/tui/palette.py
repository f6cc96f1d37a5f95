"""The few colours that carry meaning, and the glyphs that carry the same meaning without them.

Everything else on the screen takes its colour from the theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Any

from rich.style import Style
from textual.app import App
from textual.color import Color

# Level 0 is "nothing", 1 … 7 are shares of the scale.
LEVELS = 8

# matplotlib's magma: ordered by lightness, so it also reads in 256 colours and for colour-blind
# eyes. Level 0 is the ground of the map. Light themes run the other way round.
MAGMA_DARK = (
    "#1b1823", "#57157e", "#822681", "#b0347b", "#dd4a69", "#f8765c", "#febb81", "#fcfdbf",
)  # fmt: skip
MAGMA_LIGHT = (
    "#efedf2", "#fea973", "#f8765c", "#de4968", "#b73779", "#812581", "#51127c", "#180f3d",
)  # fmt: skip

# How much of its colour fills a cell behind its bar, so that a low bar is seen from afar.
FILLING = 0.45

# The eight levels as shapes: the higher the value, the higher the bar.
BARS = "·▁▂▃▄▅▆█"
# Below zero, dots that hang from above: the sign is seen in the shape, with and without colours.
HANGING = "⠁⠉⠋⠛⠟⠿⣿"


class Depth(Enum):
    """How many colours the terminal shows."""

    NONE = 0
    SIXTEEN = 16
    FULL = 256


def depth_of(app: App[Any]) -> Depth:
    """What the terminal of `app` can show; NO_COLOR is honoured."""
    if app.no_color:
        return Depth.NONE
    few = app.console.color_system in (None, "standard", "windows")
    return Depth.SIXTEEN if few and not app.is_headless else Depth.FULL


@dataclass(frozen=True)
class Ramp:
    """Styles of the map's levels, built once for a theme and a colour depth.

    cells: [8], a bar of that level on the ground; marked: [8], the same under the cursor; glyphs:
        [8], the bars. A signed ramp has 15: levels 8 … 14 are 1 … 7 below zero.
    halves: [8][8], upper and lower layer of a half-block; dots: [8], braille by highest level.
    strong: for gauges. coloured: whether the level can be read from the colour.
    """

    cells: tuple[Style, ...]
    marked: tuple[Style, ...]
    halves: tuple[tuple[Style, ...], ...]
    dots: tuple[Style, ...]
    strong: Style
    coloured: bool
    glyphs: str = BARS


@lru_cache(maxsize=16)
def ramp(depth: Depth, dark: bool, text: Style, faint: Style) -> Ramp:
    """The ramp; `text` and `faint` are the theme's, used where colours are too few for levels."""
    if depth is not Depth.FULL:
        cells = (faint, *[text] * (LEVELS - 1))
        marked = tuple(text + Style(reverse=True) for _ in range(LEVELS))
        return Ramp(cells, marked, (cells,) * LEVELS, cells, text, coloured=False)
    colours: Sequence[str] = MAGMA_DARK if dark else MAGMA_LIGHT
    ground = colours[0]
    quiet = "#3a3545" if dark else "#cfcad6"
    filled = [Color.parse(ground).blend(Color.parse(c), FILLING).hex for c in colours[1:]]
    cells = (
        Style(color=quiet, bgcolor=ground),
        *(Style(color=c, bgcolor=f) for c, f in zip(colours[1:], filled, strict=True)),
    )
    marked = tuple(Style(color=ground, bgcolor=text.color, bold=True) for _ in cells)
    halves = tuple(
        tuple(Style(color=upper, bgcolor=lower) for lower in colours) for upper in colours
    )
    dots = tuple(Style(color=quiet if c == ground else c, bgcolor=ground) for c in colours)
    return Ramp(cells, marked, halves, dots, Style(color=colours[5]), coloured=True)


# What B has more than A, and what it has less: orange and blue stay apart for colour-blind eyes.
_MORE = {True: ("#4a2a12", "#ffb066"), False: ("#fbd9b5", "#9a4a00")}
_LESS = {True: ("#14304a", "#7cc7ff"), False: ("#cfe4f5", "#004f8c")}


@lru_cache(maxsize=16)
def signed_ramp(plain: Ramp, dark: bool) -> Ramp:
    """The ramp of differences: `plain` with a second arm, and both arms in other colours."""
    glyphs = BARS + HANGING
    if not plain.coloured:
        cells = (*plain.cells, *plain.cells[1:])
        marked = (*plain.marked, *plain.marked[1:])
        return replace(plain, cells=cells, marked=marked, glyphs=glyphs)
    arms = [_arm(*ends[dark], plain.cells[0]) for ends in (_MORE, _LESS)]
    return replace(
        plain,
        cells=(plain.cells[0], *arms[0], *arms[1]),
        marked=(*plain.marked, *plain.marked[1:]),
        glyphs=glyphs,
    )


def _arm(faint: str, strong: str, ground: Style) -> list[Style]:
    """Seven levels from `faint` to `strong`, on a ground that takes after them."""
    steps = [n / (LEVELS - 2) for n in range(LEVELS - 1)]
    colours = [Color.parse(faint).blend(Color.parse(strong), step) for step in steps]
    base = Color.from_rich_color(ground.bgcolor)
    return [Style(color=c.hex, bgcolor=base.blend(c, FILLING).hex) for c in colours]


# Sources of a router's decision: one letter and one colour each. Okabe and Ito's colours, which
# stay apart for colour-blind eyes; the letters stand on the bars for the rest.
PARTS = {
    "embedding": ("E", "#e69f00"),
    "attention": ("A", "#56b4e9"),
    "routed experts": ("R", "#009e73"),
    "experts, combined": ("X", "#009e73"),
    "experts and attention, combined": ("X", "#009e73"),
    "shared expert": ("S", "#cc79a7"),
    "dense MLP": ("D", "#f0e442"),
    "static bias": ("B", "#999999"),
}


# Large areas of full colour would outshine the map: towards the ground of the theme.
_SOFTENING = {True: "#121017", False: "#fbfafc"}


@dataclass(frozen=True)
class PartMark:
    """How one source is drawn: its letter, and the style of its stretch of a bar."""

    letter: str
    style: Style
    coloured: bool = True

    def stretch(self, cells: int) -> str:
        """The text of a stretch: the letter once in it, or all over it where colour is missing."""
        return self.letter.center(cells) if self.coloured else self.letter * cells


@lru_cache(maxsize=16)
def part_marks(
    names: tuple[str, ...], depth: Depth, dark: bool, text: Style
) -> tuple[PartMark, ...]:
    """Marks of the sources `names`, letters all different."""
    marks: list[PartMark] = []
    for name in names:
        letter, colour = PARTS.get(name, (name[:1].upper() or "?", "#999999"))
        taken = {mark.letter for mark in marks}
        free = (c for c in (letter, *name.upper(), *"123456789") if c.strip() and c not in taken)
        softened = Color.parse(colour).blend(Color.parse(_SOFTENING[dark]), 0.3).hex
        style = (
            Style(color="#ffffff" if dark else "#000000", bgcolor=softened)
            if depth is Depth.FULL
            else text
        )
        marks.append(PartMark(next(free, "?"), style, depth is Depth.FULL))
    return tuple(marks)
