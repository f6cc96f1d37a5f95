"""`moetui doctor`: what works here, and what to do about the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from moetui.cli.doctor_report import Check, Status

_COLOURS: dict[Status, str] = {"ok": "\x1b[32m", "attention": "\x1b[33m", "problem": "\x1b[31m"}


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines to read, or one JSON document.",
)
@click.pass_context
def doctor(ctx: click.Context, form: str) -> None:
    """Check the terminal, mlx, memory, settings and the demo model.

    Every line says ok, attention (it works, but could work better) or problem (moetui needs it),
    what was found, and what to do about it. Exit code 1 when there is a problem. Nothing is
    changed and no network is asked; it takes some seconds.
    """
    from moetui import __version__
    from moetui.cli.doctor_report import Report, as_text
    from moetui.trace import to_json

    colours = _COLOURS if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else None
    checks = []
    for check in _checks():
        checks.append(check)
        if form == "text":
            click.echo(as_text(check, colours), color=True)
    problems = [check.name for check in checks if check.status == "problem"]
    if form == "json":
        report = Report(moetui=__version__, works=not problems, checks=tuple(checks))
        sys.stdout.buffer.write(to_json(report, indent=2))
        sys.stdout.buffer.flush()
    else:
        click.echo(_verdict(problems))
    ctx.exit(1 if problems else 0)


def _checks() -> Iterator[Check]:
    """Every check in its turn; one that fails says so, and the others go on."""
    from moetui.cli import doctor_machine as machine
    from moetui.cli import doctor_terminal as terminal

    # (name, check, what it means for moetui when the check itself fails)
    checks: tuple[tuple[str, Callable[[], Check], Status], ...] = (
        ("terminal", terminal.terminal, "attention"),
        ("colours", terminal.colours, "attention"),
        ("characters", terminal.characters, "attention"),
        ("tmux", terminal.tmux, "attention"),
        ("clipboard", terminal.clipboard, "attention"),
        ("settings", machine.settings, "problem"),
        ("versions", machine.versions, "problem"),
        ("mlx", machine.backend, "problem"),
        ("speed", machine.speed, "attention"),
        ("memory", machine.memory, "attention"),
        ("models", machine.cache, "attention"),
        ("demo", machine.self_test, "problem"),
    )
    for name, check, failed in checks:
        yield _made(name, check, failed)


def _made(name: str, check: Callable[[], Check], failed: Status) -> Check:
    from moetui.cli.doctor_report import Check
    from moetui.errors import MoetuiError

    try:
        return check()
    except MoetuiError as error:
        return Check(name=name, status=failed, found=error.message, advice=error.hint)
    except Exception as error:  # whatever is wrong with one part, the others are still looked at
        found = f"could not be looked at: {type(error).__name__}: {error}"
        return Check(name=name, status=failed, found=found, advice="please report this line")


def _verdict(problems: list[str]) -> str:
    if problems:
        return f"moetui does not work here yet: see {', '.join(problems)}"
    return "moetui works here"
