"""A study's analyses one after the other, as a run makes them, but in this process."""

from __future__ import annotations

from typing import Any

from moetui.suites.pack import pack, unpack
from moetui.suites.results import CellResult


def run_analyses(suite: Any, model: Any, *, seed: int = 0) -> list[CellResult]:
    """Every part through its bytes, then what they say together."""
    left: dict[str, list[Any]] = {}
    cells = []
    for analysis in suite.analyses:
        reason, result = analysis.unfit(model.info), None
        left[analysis.name] = []
        if reason is None:
            for part in analysis.parts(seed=seed):
                found = analysis.read(model, part, left, seed=seed, step=lambda done, of: None)
                left[analysis.name].append(unpack(pack(found), analysis.partial_type))
            outcome = analysis.reduce(model.info, left[analysis.name], seed=seed)
            reason, result = outcome.reason, outcome.result
        cells.append(
            CellResult(
                model=model.info.name,
                analysis=analysis.name,
                status="done" if reason is None else "inconclusive",
                reason=reason,
                seconds=0.0,
                result=result,
            )
        )
    return cells
