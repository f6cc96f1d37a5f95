"""The list of models as a table on a terminal, as plain columns elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.cells import cell_len

from moetui.sizes import size_text
from moetui.tui.text import fitted, plain

if TYPE_CHECKING:
    from rich.table import Table

    from moetui.model.inventory import FoundModel, Inventory

# Without these the table needs 80 columns, with them 112; the JSON has them all.
_WIDE = 112
_HEADINGS = (
    "model", "kind", "architecture", "layers", "disk", "weights", "router", "memory", "fits",
)  # fmt: skip
_LEFT_OUT = frozenset(("architecture", "weights", "router"))
_RIGHT = frozenset(("layers", "disk", "router", "memory"))
_UNKNOWN = "–"


def print_table(inventory: Inventory) -> None:
    """The models and why some cannot be opened, on standard output; how memory was estimated, on
    standard error."""
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(_table(inventory, wide=console.width >= _WIDE))
    else:
        _print_columns(inventory)
    for model in inventory.models:
        if model.problem is not None:
            click.echo(f"{plain(model.name)}: {plain(model.problem)}")
    click.echo(_footnote(inventory), err=True)


def _cells(model: FoundModel) -> dict[str, str]:
    """One row: heading → text. Of a damaged model little is known."""
    fits = {True: "yes", False: "no", None: _UNKNOWN}[model.fits]
    return {
        "model": model.name,
        "kind": model.routing or _UNKNOWN,
        "architecture": model.architecture or _UNKNOWN,
        "layers": _layers(model),
        "disk": size_text(model.disk_bytes),
        "weights": model.stored or _UNKNOWN,
        "router": f"{model.router_bits}-bit" if model.router_bits else _UNKNOWN,
        "memory": size_text(model.memory.total) if model.memory else _UNKNOWN,
        "fits": fits if model.problem is None else "no",
    }


def _layers(model: FoundModel) -> str:
    """`48`, or `1+47` where one layer is dense and 47 route."""
    if model.num_layers is None:
        return _UNKNOWN
    routing = model.moe_layers or 0
    mixed = 0 < routing < model.num_layers
    return f"{model.num_layers - routing}+{routing}" if mixed else str(model.num_layers)


def _table(inventory: Inventory, *, wide: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    headings = [heading for heading in _HEADINGS if wide or heading not in _LEFT_OUT]
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in _RIGHT else "left",
            overflow="fold",
            no_wrap=heading not in ("model", "fits"),
        )
    for model in inventory.models:
        cells = _cells(model)
        style = "red" if model.problem else "yellow" if model.fits is False else ""
        table.add_row(*(Text(plain(cells[h])) for h in headings), style=style)
    return table


def _print_columns(inventory: Inventory) -> None:
    """A heading and one line a model, in columns two spaces apart."""
    rows = [dict(zip(_HEADINGS, _HEADINGS, strict=True)), *map(_cells, inventory.models)]
    safe = [[plain(row[heading]) for heading in _HEADINGS] for row in rows]
    widths = [max(cell_len(row[i]) for row in safe) for i in range(len(_HEADINGS))]
    for row in safe:
        click.echo("  ".join(fitted(cell, widths[i]) for i, cell in enumerate(row)).rstrip())


def _footnote(inventory: Inventory) -> str:
    free = inventory.available_bytes
    told = f"{size_text(free)} are free" if free is not None else "the system does not tell"
    places = ", ".join([inventory.cache, *inventory.folders])
    return (
        f"memory: estimated for {inventory.context:,} tokens on the {inventory.backend} backend; "
        f"{told}. Looked in: {places}"
    )
