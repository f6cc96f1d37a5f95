"""The command line. Commands are imported only when they are called, so `--help` stays quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from moetui import __version__
from moetui.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    INTERRUPTED,
    InterruptedRunError,
    MoetuiError,
    UsageError,
)

# Command → (module, one line for --help). The module has a click command of the same name.
_COMMANDS = {
    "batch": ("moetui.cli.batch", "Run an experiment suite and write its results as JSON."),
    "compare": ("moetui.cli.compare", "Compare two batch results: every measure, its difference."),
    "doctor": (
        "moetui.cli.doctor",
        "Check what works on this machine; say what to do about the rest.",
    ),
    "models": ("moetui.cli.models", "List the models on this machine, and which of them fit."),
    "open": ("moetui.cli.open", "Explore a saved trace or a batch result, without the model."),
    "schema": ("moetui.cli.schema", "Print the JSON Schema of results and exports."),
    "trace": ("moetui.cli.trace", "Trace one prompt: experts, weights, shares, lens."),
}
_DEMOS = ("demo", "demo-dense")
_SAVED = (".json", ".moetrace")


class _Commands(click.Group):
    """The first word is a command, else a model to explore; no word explores the demo model."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS:
            model = _model_name(args[0])
            return "explore", click.Command("explore", callback=_explore(model)), args[1:]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `moetui trace … | head` is no failure, which click makes of it
            return _closed_pipe()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(_COMMANDS.items())])


def _model_name(word: str) -> str:
    """`word` if it can be a model; UsageError naming the nearest command otherwise."""
    path = Path(word)
    if path.suffix in _SAVED and path.is_file():
        raise UsageError(f"{word} is no model", f"what was saved opens with `moetui open {word}`")
    looks_like_one = word in _DEMOS or "/" in word or word.startswith(("~", "."))
    if looks_like_one or path.exists():
        return word
    near = get_close_matches(word, [*_COMMANDS, *_DEMOS], n=1)
    raise UsageError(
        f"{word!r} is neither a command, a model folder, nor org/name",
        f"did you mean `moetui {near[0]}`?" if near else "see `moetui --help`",
    )


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="[MODEL | COMMAND ...]",
)
@click.version_option(__version__, "--version", message="moetui %(version)s")
@click.option("--download", is_flag=True, help="Fetch MODEL from the Hugging Face Hub first.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def main(ctx: click.Context, download: bool, debug: bool) -> None:
    """Explore which experts a mixture-of-experts model chooses, and why.

    With no MODEL the bundled demo model opens, at once and without a network. MODEL is demo,
    demo-dense, a folder with a Hugging Face checkpoint, or an org/name from the local
    Hugging Face cache.
    """
    ctx.obj = {"download": download, "debug": debug}
    if ctx.invoked_subcommand is None:
        _open_explorer("demo", ctx.obj)


def _explore(model: str) -> Any:
    @click.pass_context
    def callback(ctx: click.Context) -> None:
        _open_explorer(model, ctx.obj)

    return callback


def _open_explorer(model: str, options: dict[str, bool]) -> NoReturn:
    from moetui.cli.explore import explore, require_terminal

    require_terminal("without one use `moetui trace -p TEXT` or `moetui batch SUITE`")
    if options["download"]:
        from moetui.model.locate import locate

        locate(model, download=True)
    explore(model, options["debug"])


def run(arguments: Sequence[str]) -> int:
    """Run moetui with `arguments`; the exit code. Errors are two lines on standard error."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _interrupted(INTERRUPTED)


def _run(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments
    try:
        code = main.main(args=list(arguments), prog_name="moetui", standalone_mode=False)
    except InterruptedRunError as error:
        return _interrupted(f"{error.message}\nhint: {error.hint}")
    except MoetuiError as error:
        if debug:
            raise
        return _report(error.message, error.hint, error.exit_code)
    except click.UsageError as error:
        context = error.ctx.command_path if error.ctx else "moetui"
        return _report(error.format_message().rstrip("."), f"see `{context} --help`", EXIT_USAGE)
    except click.ClickException as error:
        return _report(error.format_message(), "see `moetui --help`", error.exit_code)
    except click.Abort as error:  # what click makes of Ctrl-C, and of a file that ends too early
        if not isinstance(error.__cause__, EOFError):
            return _interrupted(INTERRUPTED)
        if debug:
            raise
        return _defect(error.__cause__)
    except Exception as error:  # a defect: still two lines, unless asked for more
        if debug:
            raise
        return _defect(error)
    return int(code or 0)


def _interrupted(told: str) -> int:
    click.echo(told, err=True)
    return EXIT_INTERRUPTED


def _defect(error: Exception) -> int:
    return _report(
        f"{type(error).__name__}: {error}",
        "this is a defect; run again with `moetui --debug …` and report what it prints",
        EXIT_FAILED,
    )


def _report(message: str, hint: str, code: int) -> int:
    click.echo(f"error: {message}", err=True)
    click.echo(f"hint: {hint}", err=True)
    return code


def _closed_pipe() -> int:
    """Keep the interpreter from complaining about the closed pipe when it flushes at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
