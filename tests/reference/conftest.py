"""The live reference is computed with torch, so it runs only where `slow` is asked for."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave this folder's slow tests out of a run without `-m`; they then need no skip."""
    if config.getoption("-m"):
        return
    live = [i for i in items if i.get_closest_marker("slow") and "reference" in i.path.parts]
    if live:
        config.hook.pytest_deselected(items=live)
        items[:] = [item for item in items if item not in live]
