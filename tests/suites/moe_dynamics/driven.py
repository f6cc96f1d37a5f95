"""A study run on a model at hand, part by part, without a runner."""

from __future__ import annotations

from typing import Any

from moetui.suites.moe_dynamics import study_suite
from moetui.suites.results import CellResult


def driven(name: str, model: Any, seed: int = 0, **parameters: Any) -> tuple[Any, list[CellResult]]:
    """The suite of a study, and the cells that it leaves of `model`."""
    suite = study_suite(name, parameters)
    needs: dict[str, Any] = {}
    cells = []
    for analysis in suite.analyses:
        reason, result = analysis.unfit(model.info), None
        if reason is None:
            partials = [
                analysis.read(
                    model, part, {n: needs[n] for n in analysis.needs}, seed=seed, step=_nothing
                )
                for part in analysis.parts(seed=seed)
            ]
            needs[analysis.name] = partials
            outcome = analysis.reduce(model.info, partials, seed=seed)
            result, reason = outcome.result, outcome.reason
        cells.append(
            CellResult(
                model=model.info.name, analysis=analysis.name,
                status="done" if reason is None else "inconclusive",
                reason=reason, seconds=0.0, result=result,
            )
        )  # fmt: skip
    return suite, cells


def result(cells: list[CellResult], analysis: str) -> Any:
    """What one analysis found."""
    return next(cell.result for cell in cells if cell.analysis == analysis)


def _nothing(done: int, total: int) -> None:
    """Nobody watches."""
