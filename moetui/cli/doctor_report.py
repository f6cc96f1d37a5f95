"""What `moetui doctor` says: one check after the other, as text or as one JSON document."""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA_VERSION = 1

# ok: as it should be. attention: works, but less well than it could. problem: moetui needs it.
Status = Literal["ok", "attention", "problem"]
Fact = str | int | float | bool | None


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    found: what was found, in one line. advice: what to do about it; None where nothing need be
    done. facts: the same findings as values, by name; sizes in bytes.
    """

    name: str
    status: Status
    found: str
    advice: str | None = None
    facts: dict[str, Fact] = {}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was looked at. works: nothing that moetui needs is broken."""

    schema_version: int = SCHEMA_VERSION
    moetui: str
    works: bool
    checks: tuple[Check, ...]


_NAME = 11
_STATUS = 10


def as_text(check: Check, colours: dict[Status, str] | None = None) -> str:
    """`check` in one line, and its advice in a second one; `colours` are escape sequences."""
    word = f"{check.status:<{_STATUS}}"
    if colours:
        word = f"{colours[check.status]}{word}\x1b[0m"
    line = f"{word} {check.name:<{_NAME}} {check.found}"
    if check.advice is None:
        return line
    return f"{line}\n{'':<{_STATUS + _NAME + 2}}→ {check.advice}"
