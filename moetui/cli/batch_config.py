"""`--config` and `--print-config` of `moetui batch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from moetui.suites.config import Config
    from moetui.suites.plan import Suite


def read_options(
    ctx: click.Context, parameter: click.Parameter, path: Path | None
) -> Config | None:
    """Callback of an eager `--config`: what the file says of options becomes their defaults."""
    if path is None:
        return None
    import msgspec

    from moetui.suites.config import read_config

    config = read_config(path)
    ctx.default_map = {
        name: value
        for name, value in msgspec.to_builtins(config.options).items()
        if name != "models"
    }
    return config


def config_of(ctx: click.Context, prepared: Sequence[Suite]) -> str:
    """A configuration file that makes this very call, with a comment on everything."""
    from moetui.suites.config import Options, config_text

    helps = {p.name: p.help or "" for p in ctx.command.params if isinstance(p, click.Option)}
    options = [
        (name, _plain(ctx.params[name]), helps[name])
        for name in Options.__struct_fields__
        if name != "models"
    ]
    names = " ".join(suite.name for suite in prepared)
    return config_text(prepared, options, f"moetui batch {names} --config FILE")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
