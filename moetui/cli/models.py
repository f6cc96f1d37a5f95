"""`moetui models`: the models on this machine, and which of them fit into its memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from moetui.model.inventory import Inventory


@click.command()
@click.option(
    "--context",
    default=2048,
    show_default=True,
    type=click.IntRange(1, 10_000_000),
    help="Tokens to estimate the memory for.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="A table (plain columns when piped), or one JSON document.",
)
def models(context: int, form: str) -> None:
    """List the models on this machine: the bundled ones, the Hugging Face cache, your folders.

    Folders are those of model_folders in the settings (~/models by default), searched one and two
    levels deep; the cache is where HF_HOME or HF_HUB_CACHE say. Everything is told from
    config.json and the headers of the weight files: no weight is read and no network asked.

    Memory is an estimate of what moetui will take: the weights as they are loaded (float32 on a
    CPU, packed where they are quantised), keys and values of --context tokens, and what is
    captured of them. Layers given as 1+47 are one dense layer and 47 that route.
    """
    from moetui.cli.models_table import print_table
    from moetui.trace import to_json

    inventory = _inventory(context)
    if form == "json":
        sys.stdout.buffer.write(to_json(inventory, indent=2))
        sys.stdout.buffer.flush()
    else:
        print_table(inventory)


def _inventory(context: int) -> Inventory:
    from moetui.model.backend import expected_backend
    from moetui.model.inventory import Inventory, find_models
    from moetui.model.memory import room
    from moetui.model.places import hub_cache
    from moetui.settings import load_settings

    folders = load_settings().model_folders
    backend = expected_backend()
    return Inventory(
        backend=backend,
        available_bytes=room(backend),
        context=context,
        cache=str(hub_cache()),
        folders=tuple(str(folder) for folder in folders),
        models=tuple(find_models(folders, context=context)),
    )
