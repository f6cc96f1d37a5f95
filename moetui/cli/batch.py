"""`moetui batch`: run experiment suites and write what they find as JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from moetui.suites import SuiteResult
    from moetui.suites.runner import Suite

_STDOUT = Path("-")


@click.command()
@click.argument("suites", metavar="SUITE...", nargs=-1, required=True)
@click.option(
    "-m", "--model", "models", multiple=True, help="demo, a folder, org/name; repeat for several."
)
@click.option(
    "--parameter",
    "assignments",
    metavar="[SUITE.]KEY=JSON",
    multiple=True,
    help="""Set a parameter, e.g. layers='[0,4]' (see --describe).""",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Of all random draws."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="A .json file, a folder, or - for standard output.",
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "json", "off"]),
    default="auto",
    show_default=True,
    help="On standard error: a bar on terminals, or one JSON object a line.",
)
@click.option("--describe", is_flag=True, help="Show question, parameters and cost; run nothing.")
@click.option("--dry-run", is_flag=True, help="Show the plan; load and run nothing.")
@click.pass_context
def batch(
    ctx: click.Context,
    suites: tuple[str, ...],
    models: tuple[str, ...],
    assignments: tuple[str, ...],
    seed: int,
    output: Path,
    progress: str,
    describe: bool,
    dry_run: bool,
) -> None:
    """Run experiment SUITEs on one or more models.

    Every number of a suite's published definition stands beside the corrected one, with its
    interval and its size. Standard output carries the paths that were written, or with `-o -`
    the JSON; everything else goes to standard error. There is one suite: attention_router.
    """
    names = tuple(dict.fromkeys(suites))
    chosen = _chosen(names, models, assignments)
    if describe or dry_run:
        for suite in chosen:
            click.echo(_description(suite) if describe else _plan(suite))
        return
    targets = [_target(output, suite.name, len(chosen)) for suite in chosen]
    failed = False
    for suite, target in zip(chosen, targets, strict=True):
        result = _run(suite, seed, progress)
        _deliver(result, target)
        failed = failed or bool(result.failures)
    if failed:
        ctx.exit(1)


def _chosen(
    names: tuple[str, ...], models: tuple[str, ...], assignments: tuple[str, ...]
) -> list[Suite]:
    """The suites with their parameters; every mistake shows before anything is loaded."""
    from moetui.suites import suite

    for name in names:
        suite(name)
    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    for assignment in assignments:
        scope, key, value = _assignment(assignment, names)
        for name in scope:
            given[name][key] = value
    if models:
        for parameters in given.values():
            _refuse_two_sources(parameters)
            parameters["models"] = list(models)
    return [suite(name, parameters) for name, parameters in given.items()]


def _assignment(text: str, names: tuple[str, ...]) -> tuple[tuple[str, ...], str, Any]:
    """[SUITE.]KEY=JSON as (suites it is for, key, value)."""
    import msgspec

    from moetui.errors import UsageError
    from moetui.suites.parameters import nearest

    name, equals, raw = text.partition("=")
    scope, dot, key = name.strip().rpartition(".")
    if not equals or not key:
        raise UsageError(f"--parameter {text!r} is not KEY=JSON", "write e.g. layers='[0,4]'")
    if dot and scope not in names:
        raise UsageError(
            f"--parameter {text!r}: {scope!r} is not among the suites to run",
            f"did you mean {nearest(scope, names)}.{key}?",
        )
    try:
        return (scope,) if dot else names, key, msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"parameter {key}: {raw!r} is not JSON", f"""a text needs its quotes: {key}='"text"'"""
        ) from error


def _refuse_two_sources(parameters: dict[str, Any]) -> None:
    from moetui.errors import UsageError

    if "models" in parameters:
        raise UsageError("models are given by -m and by --parameter", "give them one way only")


def _description(suite: Suite) -> str:
    """What a suite asks, what can be set, what it costs."""
    import msgspec

    values = msgspec.to_builtins(suite.parameters)
    lines = [f"{suite.name}: {suite.question}", "", "Parameters:"]
    lines += [f"  {key} = {msgspec.json.encode(value).decode()}" for key, value in values.items()]
    return "\n".join([*lines, "", f"Analyses: {', '.join(suite.analyses)}", f"Cost: {suite.cost}"])


def _plan(suite: Suite) -> str:
    from moetui.suites.runner import plan

    cells = plan(suite, suite.models)
    return "\n".join(f"{suite.name} {cell.model} {cell.analysis}" for cell in cells)


def _target(output: Path, suite: str, suites: int) -> Path:
    """Where a suite's result goes; checked and its folder made before anything runs."""
    from datetime import datetime

    from moetui.errors import UsageError

    if output == _STDOUT:
        if suites > 1:
            raise UsageError(f"{suites} results do not fit one JSON document", "give -o a folder")
        return output
    as_file = output.suffix == ".json" and not output.is_dir()
    if as_file and suites > 1:
        raise UsageError(f"{suites} results do not fit into {output}", "give -o a folder")
    stamp = datetime.now().astimezone().strftime("%Y%m%d_%H%M%S")
    target = output if as_file else output / f"{suite}_{stamp}.json"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {target.parent}: {error.strerror}", "give -o another folder"
        ) from error
    return target


def _run(suite: Suite, seed: int, progress: str) -> SuiteResult:
    from moetui.cli.batch_progress import drawn
    from moetui.suites import run_prepared

    with drawn(progress) as watcher:
        return run_prepared(suite, seed=seed, progress=watcher)


def _deliver(result: SuiteResult, target: Path) -> None:
    from moetui.cli.batch_table import print_summary
    from moetui.suites import result_json, write_result

    print_summary(result)
    if target == _STDOUT:
        sys.stdout.buffer.write(result_json(result))
        sys.stdout.buffer.flush()
        return
    write_result(result, target)
    click.echo(str(target))
