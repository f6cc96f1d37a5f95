"""How numbers and foreign text read wherever a result is drawn: one wording for all drawers."""

from __future__ import annotations

import unicodedata

from moetui.stats import Statistic

ABSENT = "—"
ELLIPSIS = "…"
LINE_BREAK = "↵"
# What is smaller than the rounding of the sums that numbers here come from.
_RESIDUE = 1e-12
# Emoji modifiers and regional indicators join their neighbours in some terminals, not in others.
_JOINING = frozenset(map(chr, [*range(0x1F3FB, 0x1F400), *range(0x1F1E6, 0x1F200)]))


def number(value: float | int | None) -> str:
    """`value` to two or three digits; what is not known is a dash.

    A count that comes as a float reads as a count, and what only rounding left reads as 0.
    """
    if value is None:
        return ABSENT
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size < _RESIDUE:
        return "0"
    if value.is_integer():
        return f"{value:,.0f}"
    if size < 0.001:
        return f"{value:.1e}"
    if size < 0.00995:
        return f"{value:.4f}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"


def expert_name(layer: int, expert: int) -> str:
    """An expert of a decoder layer, written as the seed does."""
    return f"L{layer}-E{expert}"


def probability(value: float | None) -> str:
    """A p or q value to two digits, and never as 0."""
    return ABSENT if value is None else f"{value:.2g}"


def interval(statistic: Statistic) -> str:
    """The 95 % interval in brackets."""
    if statistic.ci_low is None and statistic.ci_high is None:
        return ABSENT
    return f"[{number(statistic.ci_low)}, {number(statistic.ci_high)}]"


def null(statistic: Statistic) -> str:
    """The value under chance: its mean, and its central 95 % in brackets."""
    if statistic.null_mean is None and statistic.null_low is None:
        return ABSENT
    if statistic.null_low is None and statistic.null_high is None:
        return number(statistic.null_mean)
    band = f"[{number(statistic.null_low)}, {number(statistic.null_high)}]"
    return band if statistic.null_mean is None else f"{number(statistic.null_mean)} {band}"


def claim(statistic: Statistic) -> str:
    """Value, interval, null and p in one cell, whichever of them are known."""
    told = number(statistic.value)
    if statistic.ci_low is not None or statistic.ci_high is not None:
        told += f" {interval(statistic)}"
    if (chance := null(statistic)) != ABSENT:
        told += f", null {chance}"
    if statistic.q is not None:
        told += f", q {probability(statistic.q)}"
    elif statistic.p is not None:
        told += f", p {probability(statistic.p)}"
    return told


def visible(text: str) -> str:
    """`text` in one line in which nothing can steer a terminal or hide.

    Controls, directional marks, joiners and lone surrogates become escapes (\\x1b, \\u202e), a
    line break becomes ↵; letters, marks and symbols of all scripts stay.
    """
    return "".join(_shown(character) for character in unicodedata.normalize("NFC", text))


def cells(text: str) -> int:
    """Columns that visible `text` takes in a terminal."""
    return sum(_width(character) for character in text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Visible `text` cut (with …) or filled up to exactly `width` columns."""
    size = cells(text)
    if size > width:
        kept, used = "", 0
        for character in text:
            if used + _width(character) > width - 1:
                break
            kept, used = kept + character, used + _width(character)
        text, size = kept + ELLIPSIS, used + 1
    blank = " " * (width - size)
    return blank + text if right else text + blank


def wrapped(text: str, width: int) -> list[str]:
    """Visible `text` broken at spaces into rows of at most `width` columns; a word that is
    longer is broken inside."""
    rows = [""]
    for word in text.split():
        rest = word
        if rows[-1] and cells(rows[-1]) + 1 + cells(rest) > width:
            rows.append("")
        while cells(rest) > width:
            head = _head(rest, width)
            rows[-1:] = [head, ""] if not rows[-1] else [rows[-1], head, ""]
            rest = rest[len(head) :]
        rows[-1] = f"{rows[-1]} {rest}" if rows[-1] else rest
    return rows if rows[-1] or len(rows) == 1 else rows[:-1]


def _head(word: str, width: int) -> str:
    """As much of `word` as fits, and at least one character."""
    used = 0
    for at, character in enumerate(word):
        used += _width(character)
        if used > width:
            return word[: max(at, 1)]
    return word


def _shown(character: str) -> str:
    category, code = unicodedata.category(character), ord(character)
    if character == " ":
        return character
    if character == "\n":
        return LINE_BREAK
    variation = 0xFE00 <= code <= 0xFE0F
    if category[0] == "C" or category in ("Zl", "Zp", "Zs") or variation or character in _JOINING:
        if code < 0x100:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
