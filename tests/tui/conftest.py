"""The same terminal for every test, whatever the one that runs them can do."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM") or name.startswith("TEXTUAL_"):
            monkeypatch.delenv(name)
