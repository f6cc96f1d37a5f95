"""`moetui compare`: two batch results side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import click

# Width where standard output is no terminal.
_WIDTH, _WIDEST = 110, 160


@click.command()
@click.argument("first", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("second", metavar="B.json", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="For a terminal, for a web page, or for a program.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the permutations."
)
def compare(first: Path, second: Path, form: str, seed: int) -> None:
    """Compare two results of `moetui batch`: every measure of both, and the difference.

    A difference has a 95 % interval where both measures have one (MOVER), and where they have
    too few prompts for that a sign-flip permutation over the same prompts. Parameters, models,
    seeds and versions that differ are listed; results of different suites are refused.
    """
    from moetui.suites.comparison import compare as side_by_side
    from moetui.suites.comparison import sections
    from moetui.suites.lines import text_of
    from moetui.suites.report import markdown
    from moetui.suites.stored import open_result
    from moetui.trace import to_json

    results = open_result(first), open_result(second)
    found = side_by_side(*results, names=(str(first), str(second)), seed=seed)
    if form == "json":
        data = to_json(found, indent=2)
    elif form == "markdown":
        data = markdown(f"# {found.suite}: two results", sections(found)).encode()
    else:
        data = text_of(sections(found), _width()).encode()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _width() -> int:
    import shutil

    return min(shutil.get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else _WIDTH
