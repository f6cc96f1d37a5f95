"""The closing table of a batch run on standard error: seed beside corrected, then both verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from moetui.analyses.attention_router import CorrectedDecomposition, SeedDecomposition
    from moetui.stats import Statistic
    from moetui.suites import SuiteResult

# Width of the table where standard error is no terminal.
_WIDTH = 110


def print_summary(result: SuiteResult) -> None:
    """The result in a table and a few lines, on standard error."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=_WIDTH)
    for table in _tables(result):
        console.print(table)
    for line in _lines(result):
        console.print(line)


def _tables(result: SuiteResult) -> Iterator[Table]:
    from moetui.analyses.attention_router import PromptDecomposition

    for model in result.models:
        found = [cell.result for cell in result.cells if cell.model == model.name]
        prompts = [r for r in found if isinstance(r, PromptDecomposition)]
        shares = _shares(result, model.name)
        if prompts and shares is not None:
            yield _table(model.name, prompts[0].seed, shares)


def _shares(result: SuiteResult, model: str) -> CorrectedDecomposition | None:
    """The corrected shares of one model: over the corpus where there is one, else the prompts."""
    from moetui.analyses.attention_router import CorpusDecomposition, PromptDecomposition

    found = [cell.result for cell in result.cells if cell.model == model]
    readings = [
        *(r.corrected for r in found if isinstance(r, CorpusDecomposition)),
        *(r.corrected for r in found if isinstance(r, PromptDecomposition)),
    ]
    return next((reading for reading in readings if reading is not None), None)


def _table(model: str, seed: SeedDecomposition, shares: CorrectedDecomposition) -> Table:
    from rich.table import Table
    from rich.text import Text

    size = f"{shares.documents} documents, {shares.tokens:,} tokens ({shares.positions})"
    table = Table(
        title=Text(f"{model}: seed ratio beside shares of the variance across tokens"),
        caption=Text(f"shares over {size}, 95 % interval over documents"),
    )
    table.add_column("layer", justify="right")
    table.add_column("seed ratio", justify="right")
    parts = [part.part for part in shares.mean.parts if part.across_tokens is not None]
    for part in parts:
        table.add_column(Text(part), justify="right")
    by_layer = {layer.layer: layer for layer in seed.layers}
    for layer in (*shares.layers, shares.mean):
        if layer.layer is None:
            table.add_section()
            ratio = _number(seed.mean_ratio)
        else:
            own = by_layer[layer.layer]
            ratio = f"{_number(own.ratio)} ± {_number(own.ratio_std)}"
        name = "mean > 0" if layer.layer is None else str(layer.layer)
        values = [_share(p.across_tokens) for p in layer.parts if p.across_tokens is not None]
        table.add_row(name, ratio, *values)
    return table


def _lines(result: SuiteResult) -> Iterator[Text]:
    from rich.text import Text

    for cell in result.cells:
        if cell.reason is not None:
            yield Text(f"{cell.model} {cell.analysis}: {cell.status}: {cell.reason}")
    for verdict in (result.verdict.seed, result.verdict.corrected):
        said = verdict.statement.removeprefix(f"{verdict.outcome}: ")
        yield Text(f"{verdict.label}: {verdict.outcome}: {said}")
    yield Text(result.verdict.why_they_differ)
    readings = (_shares(result, model.name) for model in result.models)
    caveats = (caveat for shares in readings if shares is not None for caveat in shares.caveats)
    for caveat in dict.fromkeys(caveats):
        yield Text(f"caveat: {caveat}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(statistic: Statistic) -> str:
    if statistic.value is None:
        return "–"
    if statistic.ci_low is None or statistic.ci_high is None:
        return f"{statistic.value:.2f}"
    return f"{statistic.value:.2f} [{statistic.ci_low:.2f}, {statistic.ci_high:.2f}]"
