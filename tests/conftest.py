"""The largest errors against transformers: noted by whichever process finds them, printed once."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest


class LargestErrors:
    """The largest relative error of every family and field."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, float]] = defaultdict(dict)

    def note(self, family: str, name: str, error: float) -> None:
        """Keep the larger."""
        self.of[family][name] = max(error, self.of[family].get(name, 0.0))


_FOUND = LargestErrors()
_OUTPUT = "largest errors"


@pytest.fixture(scope="session")
def errors() -> LargestErrors:
    return _FOUND


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)  # there in pytest-xdist's processes
    if output is not None:
        output[_OUTPUT] = {family: dict(found) for family, found in _FOUND.of.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    for family, found in getattr(node, "workeroutput", {}).get(_OUTPUT, {}).items():
        for name, size in found.items():
            _FOUND.note(family, name, size)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _FOUND.of:
        return
    terminalreporter.section("largest error against transformers, relative to the field")
    for family, found in sorted(_FOUND.of.items()):
        fields = "  ".join(f"{name} {error:.1e}" for name, error in sorted(found.items()))
        terminalreporter.write_line(f"{family}: {fields}")
