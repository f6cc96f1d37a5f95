"""Model text made safe for a terminal: nothing in it may style, move or break the screen.

A vocabulary holds markup, escape bytes, lone control characters, bidirectional overrides,
zero-width joiners and whole scripts of wide letters. `plain` shows what is invisible and keeps
what is a letter, and its result is as wide as `rich.cells.cell_len` says.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len, get_character_cell_size

# More marks than this on one letter are a prank or noise, and are spelt out.
MARKS_PER_LETTER = 2
DOTTED_CIRCLE = "◌"
ELLIPSIS = "…"

_NAMED = {
    "\n": "↵",
    "\t": "⇥",
    "\r": "␍",
    "\x7f": "␡",
    "\u00a0": "⍽",
    "\u00ad": "⟨shy⟩",
    "\u200b": "⟨zwsp⟩",
    "\u200c": "⟨zwnj⟩",
    "\u200d": "⟨zwj⟩",
    "\u200e": "⟨lrm⟩",
    "\u200f": "⟨rlm⟩",
    "\u202d": "⟨lro⟩",
    "\u202e": "⟨rlo⟩",
    "\ufe0f": "⟨vs16⟩",
    "\ufeff": "⟨bom⟩",
}
# Emoji modifiers and regional indicators join their neighbours in some terminals, not in others.
_JOINING = frozenset(map(chr, [*range(0x1F3FB, 0x1F400), *range(0x1F1E6, 0x1F200)]))


def plain(text: str, width: int | None = None) -> str:
    """`text` as one safe line; with `width`, cut (with …) or padded to exactly that many cells.

    Controls are shown as pictures (␀ ␛ ↵ ⇥), C1 bytes as \\xNN, what has no width of its own as
    ⟨U+NNNN⟩ or its short name, spaces at either end as ·.
    """
    safe = _visible(text)
    return safe if width is None else fitted(safe, width)


def fitted(text: str, width: int) -> str:
    """Safe `text` cut (with …) or padded to exactly `width` cells."""
    if width <= 0:
        return ""
    size = cell_len(text)
    if size <= width:
        return text + " " * (width - size)
    kept, used = [], 0
    for character in text:
        size = get_character_cell_size(character)
        if used + size > width - 1:
            break
        kept.append(character)
        used += size
    return "".join(kept) + ELLIPSIS + " " * (width - 1 - used)


@lru_cache(maxsize=16384)
def _visible(text: str) -> str:
    composed = unicodedata.normalize("NFC", text)
    inner = composed.strip(" ")
    if not inner:
        return "·" * len(composed)
    lead = len(composed) - len(composed.lstrip(" "))
    trail = len(composed) - lead - len(inner)
    return "·" * lead + _spelt(inner) + "·" * trail


def _spelt(text: str) -> str:
    """`text` with every character that is not a plain letter, mark or space made visible."""
    out: list[str] = []
    marks, on_letter = 0, False
    for character in text:
        category = unicodedata.category(character)
        if category in ("Mn", "Me") and get_character_cell_size(character) == 0:
            named = character in _NAMED or 0xFE00 <= ord(character) <= 0xFE0F
            if named or marks >= MARKS_PER_LETTER:
                out.append(_NAMED.get(character) or f"⟨U+{ord(character):04X}⟩")
                continue
            out.append(character if on_letter else DOTTED_CIRCLE + character)
            marks, on_letter = marks + 1, True
            continue
        shown = _shown(character, category)
        out.append(shown)
        marks, on_letter = 0, shown == character and category[0] == "L"
    return "".join(out)


def _shown(character: str, category: str) -> str:
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if code < 0x20:
        return chr(0x2400 + code)
    if category == "Cc":
        return f"\\x{code:02x}"
    hidden = category[0] in "CZ" and character != " "
    if hidden or character in _JOINING or get_character_cell_size(character) == 0:
        return f"⟨U+{code:04X}⟩"
    return character
