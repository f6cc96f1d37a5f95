"""Rows of a map, layers by experts: bars, half-blocks or braille, as merged spans."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rich.style import Style

from moetui.tui.palette import LEVELS, Ramp
from moetui.tui.widgets.axes import ExpertAxis
from moetui.tui.widgets.lines import Line, Span

Levels = NDArray[np.int8]

# There is no such expert in this layer: neither a level nor nothing.
ABSENT = -1

# Dots of a braille cell, [4 layers, 2 experts], as bits above U+2800.
_BLANK = Style()
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def levels_of(values: NDArray[np.float64], full: float) -> Levels:
    """0 for nothing at all, 1 … 7 for values up to `full`, ABSENT for NaN; any shape.

    The scale is a square root: weights are many small and few large ones.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.sqrt(values / full) if full > 0 else np.zeros_like(values)
        level = np.where(values > 0, 1 + np.minimum(share * (LEVELS - 1), LEVELS - 2), 0)
    return np.where(np.isnan(values), ABSENT, np.nan_to_num(level)).astype(np.int8)


def signed_levels(values: NDArray[np.float64], full: float) -> Levels:
    """The same of signed values: 1 … 7 above zero, 8 … 14 below, by size."""
    levels = levels_of(abs(values), full)
    below = (levels > 0) & (np.nan_to_num(values) < 0)
    signed: Levels = np.where(below, levels + LEVELS - 1, levels).astype(np.int8)
    return signed


def strongest(levels: Levels, axis: ExpertAxis) -> Levels:
    """[rows, columns]: of signed levels, that of the largest size of those that share a column."""
    size = np.where(levels >= LEVELS, levels - LEVELS + 1, levels)
    kept = np.argmax(_columns(size, axis), axis=2)[..., None]
    most: Levels = np.take_along_axis(_columns(levels, axis), kept, axis=2)[..., 0]
    return most


def folded(levels: Levels, axis: ExpertAxis) -> Levels:
    """[rows, columns]: the highest level of the experts that share a column, from [rows, E]."""
    highest: Levels = _columns(levels, axis).max(axis=2)
    return highest


def _columns(levels: Levels, axis: ExpertAxis) -> Levels:
    """[rows, columns, fold], padded with ABSENT."""
    shown = levels[:, axis.experts.start : axis.experts.stop]
    missing = axis.columns * axis.fold - shown.shape[1]
    padded = np.pad(shown, ((0, 0), (0, missing)), constant_values=ABSENT)
    return padded.reshape(len(levels), axis.columns, axis.fold)


def bar_row(levels: Levels, width: int, ramp: Ramp, marked: int | None) -> Line:
    """One layer, from levels [columns]: a bar in each, `width` cells wide; `marked` is the
    column under the cursor."""
    # Wide cells stand apart.
    bar = max(width - 1, 1) if width > 2 else width
    spans: list[Span] = []
    for start, stop in _runs(levels, marked):
        level, count = int(levels[start]), stop - start
        if level == ABSENT:
            spans.append((" " * width * count, _BLANK))
        elif level == 0 and start != marked:
            spans.append(((ramp.glyphs[0] + " " * (width - 1)) * count, ramp.cells[0]))
        else:
            style = (ramp.marked if start == marked else ramp.cells)[level]
            glyphs = ramp.glyphs[level] * bar
            cell: Line = ((glyphs, style), (" " * (width - bar), ramp.cells[0]))
            spans += cell * count if bar < width else [(glyphs * count, style)]
    return tuple(spans)


def half_row(levels: Levels, width: int, ramp: Ramp, marked: int | None) -> Line:
    """Two layers, from levels [2, columns], the first in the upper halves."""
    upper, lower = levels.astype(int)
    spans: list[Span] = []
    for start, stop in _runs((upper + 1) * (LEVELS + 1) + lower + 1, marked):
        pair = int(upper[start]), int(lower[start])
        glyph, style = _half(pair, ramp)
        if start == marked:
            style += Style(reverse=True)
        spans.append((glyph * width * (stop - start), style))
    return tuple(spans)


def dot_row(levels: Levels, ramp: Ramp, marked: int | None) -> Line:
    """Four layers, two experts a cell, from levels [4, 2·cells]; a dot where anything is."""
    quads = levels.reshape(4, -1, 2)
    codes = ((quads > 0) * _DOTS[:, None, :]).sum(axis=(0, 2))
    most = quads.max(axis=(0, 2))
    spans: list[Span] = []
    for start, stop in _runs(np.maximum(most, 0), marked):
        glyphs = "".join(chr(0x2800 + int(code)) for code in codes[start:stop])
        style = ramp.dots[max(int(most[start]), 0)]
        spans.append((glyphs, style + Style(reverse=True) if start == marked else style))
    return tuple(spans)


def _half(pair: tuple[int, int], ramp: Ramp) -> tuple[str, Style]:
    """Where colours are missing, the shape says which of the two layers has something."""
    upper, lower = pair
    if upper == lower == ABSENT:
        return " ", _BLANK
    if ramp.coloured:
        return "▀", ramp.halves[max(upper, 0)][max(lower, 0)]
    shape = (upper > 0) + 2 * (lower > 0)
    return "·▀▄█"[shape], ramp.cells[1 if shape else 0]


def _runs(values: NDArray[np.generic], marked: int | None) -> list[tuple[int, int]]:
    """Start and stop of every run of equal values; the marked column is a run of its own."""
    cuts = set((np.flatnonzero(values[1:] != values[:-1]) + 1).tolist())
    if marked is not None:
        cuts |= {marked, marked + 1}
    bounds = sorted(cuts | {0, len(values)})
    return [(a, b) for a, b in pairwise(bounds) if b <= len(values)]
