"""The same terminal for every test, whatever the one that runs them can do."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        # The snapshot plugin talks to itself by variables of its own.
        of_textual = name.startswith("TEXTUAL_") and not name.startswith("TEXTUAL_SNAPSHOT")
        if of_textual or name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
            monkeypatch.delenv(name)
