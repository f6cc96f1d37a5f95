"""What a result lacks, as sections: what failed, what stayed open, and the caveats."""

from __future__ import annotations

from collections.abc import Iterator

from moetui.suites.results import CellResult, SuiteResult
from moetui.suites.tables import Section, Table


def sections(result: SuiteResult) -> Iterator[Section]:
    """Both, as far as there are any."""
    yield from _failures(result)
    yield from _caveats(result)


def _failures(result: SuiteResult) -> Iterator[Section]:
    """What failed or stayed open, and why; once where several analyses share the reason."""
    shared = _by_reason(result)
    if not shared:
        return
    every = len({cell.analysis for cell in result.cells})
    rows = tuple(
        (model, "all" if len(names) == every > 1 else ", ".join(names), status, reason)
        for (model, status, reason), names in shared.items()
    )
    columns = ("model", "analysis", "status", "reason")
    yield Section(
        heading="Failed or inconclusive",
        tables=(Table(title="Analyses without a full result", columns=columns, rows=rows),),
    )


def _by_reason(result: SuiteResult) -> dict[tuple[str, str, str], list[str]]:
    """Analyses by model, status and reason; those of a null model only where the trained one,
    which runs first, does not lack the same for the same reason."""
    trained = {record.name: record.null_of for record in result.models}
    found: dict[tuple[str, str, str], list[str]] = {}
    for cell in result.cells:
        if cell.status == "done":
            continue
        above = trained.get(cell.model)
        if above is not None and cell.analysis in found.get(_key(cell, above), []):
            continue
        found.setdefault(_key(cell, cell.model), []).append(cell.analysis)
    return found


def _key(cell: CellResult, model: str) -> tuple[str, str, str]:
    return model, cell.status, (cell.reason or "").replace(cell.model, model)


def _caveats(result: SuiteResult) -> Iterator[Section]:
    """What a reader must know before quoting, besides what failed or stayed open."""
    told = {f"{c.model}, {c.analysis}: {c.reason}" for c in result.cells if c.status != "done"}
    left = tuple(text for text in dict.fromkeys(result.caveats) if text not in told)
    if left:
        yield Section(heading="Caveats", text=left)
