"""`moetui schema`: JSON Schema of every result and export."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", required=False)
@click.option("--list", "listed", is_flag=True, help="Print the names of all documents.")
def schema(name: str | None, listed: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of the document NAME, or of all files in one schema.

    `result` is what `moetui batch` writes, `plans` what its --export-plan does, `trace` what
    `moetui trace` prints, `comparison` that of `moetui compare`, `screen` and `pane-…` are the
    explorer's exports.
    """
    import msgspec

    from moetui.cli.schema_documents import documents
    from moetui.cli.schema_documents import schema as schema_of

    if listed:
        click.echo("\n".join(documents()))
        return
    click.echo(msgspec.json.format(msgspec.json.encode(schema_of(name)), indent=2).decode())
