"""`moetui open`: a saved trace or a batch result in the explorer, without its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from moetui.suites import SuiteResult
    from moetui.trace import Trace


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_context
def open(ctx: click.Context, file: Path) -> None:
    """Explore what was saved: a trace (`moetui trace -o NAME.moetrace`) or a batch result.

    Which of the two FILE is, its content tells. No model is loaded. A result opens in the suites
    pane: verdicts, measures with intervals and nulls, caveats. A trace opens in the panes that
    show a run; running another prompt and what-if need the model, which `o` opens.
    """
    from moetui.cli.explore import explore_result, explore_trace, require_terminal
    from moetui.trace import Trace

    found = opened(file)
    if isinstance(found, Trace):
        require_terminal("in Python, `moetui.open_trace(FILE)` reads the trace")
        explore_trace(found, ctx.obj["debug"])
    require_terminal("two results are compared without one: `moetui compare A.json B.json`")
    explore_result(found, file, ctx.obj["debug"])


def opened(file: Path) -> Trace | SuiteResult:
    """What `file` holds. Raises a MoetuiError with the cause where it is neither."""
    from moetui.suites.stored import open_result, read_start
    from moetui.trace import open_trace
    from moetui.trace.file import looks_like_trace

    return open_trace(file) if looks_like_trace(read_start(file)) else open_result(file)
