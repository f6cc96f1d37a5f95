"""The bars of a batch run: what a terminal of 80 × 24 shows of many models."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from moetui.cli.batch_progress import BarProgress
from moetui.suites.results import Cell, CellResult, Status

ANALYSES = ("sanity", "tuned_lens", "lens_fidelity", "words", "experts", "probes", "accuracy")
MODELS = tuple(f"model {at} (random weights of its trainer)" for at in range(6))


def shown(bar: Progress) -> list[str]:
    console = Console(file=io.StringIO(), width=80, height=24, record=True)
    console.print(bar.get_renderable())
    return [row.rstrip() for row in console.export_text().splitlines()]


def started() -> tuple[Progress, BarProgress]:
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    )
    progress = BarProgress(bar)
    progress.plan([cell(m, a, part) for m in MODELS for a in ANALYSES for part in ("1", "2")])
    return bar, progress


def cell(model: str, analysis: str, part: str) -> Cell:
    return Cell(model=model, analysis=analysis, part=part)


def ended(model: str, analysis: str, status: Status) -> CellResult:
    return CellResult(
        model=model, analysis=analysis, status=status, reason=None, seconds=1.0, result=None
    )


def test_every_model_and_the_analyses_of_the_present_one_are_on_the_screen() -> None:
    bar, progress = started()
    progress.start(cell(MODELS[3], "probes", "1"))
    progress.step(4, 25)
    rows = shown(bar)
    assert len(rows) <= 20 and max(map(len, rows)) <= 80
    assert all(any(row.startswith(model) for row in rows) for model in MODELS)
    assert [sum(row.startswith(f"  {name}") for row in rows) for name in ANALYSES] == [1] * 7
    assert "  probes: 1 4/25" in "\n".join(rows)


def test_cells_that_were_there_already_move_both_bars() -> None:
    bar, progress = started()
    for part in ("1", "2"):
        progress.finish(cell(MODELS[0], "sanity", part), reused=True)
    rows = shown(bar)
    assert next(row for row in rows if row.startswith("  sanity")).endswith("2/2")
    assert next(row for row in rows if row.startswith(MODELS[0])).endswith("2/14")


def test_what_did_not_end_well_stays_beside_its_model() -> None:
    bar, progress = started()
    progress.ended(ended(MODELS[0], "sanity", "failed"))
    progress.ended(ended(MODELS[0], "words", "done"))
    assert any("  sanity: failed" in row for row in shown(bar))
    progress.start(cell(MODELS[1], "sanity", "1"))
    rows = shown(bar)
    assert not any("failed" in row for row in rows if row.startswith("  "))
    assert next(row for row in rows if row.startswith(MODELS[0])).count("1 failed") == 1
