"""Where the results of a batch run go."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from moetui.suites import SuiteResult
    from moetui.suites.plan import Suite

_STDOUT = Path("-")


@dataclass(frozen=True)
class Target:
    """Where one result goes: its JSON file (None: standard output), and the folder under which its
    cells are kept (None: nowhere)."""

    json: Path | None
    cells: Path | None


@dataclass(frozen=True)
class Output:
    """Where a run's results go, a target a suite, and the report on all of them and the plans that
    they hold (None: none)."""

    targets: tuple[Target, ...]
    report: Path | None
    plans: Path | None


def targets(
    output: Path,
    suites: Sequence[Suite],
    *,
    name: str,
    report: bool,
    plans: Path | None,
    resume: bool,
) -> Output:
    """Where every suite's result goes; checked, and its folder made, before anything runs.

    name: of the report where there are several suites.
    """
    from datetime import datetime

    from moetui.errors import UsageError
    from moetui.suites.results import result_name

    if output == _STDOUT:
        if len(suites) > 1:
            raise UsageError(
                f"{len(suites)} results do not fit one JSON document", "give -o a folder"
            )
        if report or resume:
            option = "--report" if report else "--resume"
            raise UsageError(f"{option} needs a folder, not standard output", "give -o a folder")
        return Output((Target(None, None),), None, plans)
    as_file = output.suffix == ".json" and not output.is_dir()
    if as_file and len(suites) > 1:
        raise UsageError(f"{len(suites)} results do not fit into {output}", "give -o a folder")
    now = datetime.now()
    folder = output.parent if as_file else output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {folder}: {error.strerror}", "give -o another folder"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {folder} cannot be written", "give -o another folder")
    files = [output if as_file else folder / result_name(suite.name, now) for suite in suites]
    about = files[0] if len(files) == 1 else folder / result_name(name, now)
    written = about.with_suffix(".md") if report else None
    return Output(tuple(Target(file, folder) for file in files), written, plans)


def deliver(result: SuiteResult, target: Target) -> None:
    """Show the result on standard error and put it where it belongs."""
    from moetui.cli.batch_table import print_summary
    from moetui.suites import result_json, write_result

    print_summary(result)
    if target.json is None:
        _print(result_json(result))
        return
    write_result(result, target.json)
    click.echo(str(target.json))
    click.echo(f"all numbers: moetui open {target.json}", err=True)


def export_plans(results: Sequence[SuiteResult], output: Output) -> None:
    """Write the plans in `results` where `output` says; without any there is an error, and the
    results stay."""
    from moetui.suites.plans import write_plans

    if output.plans is not None:
        write_plans(results, output.plans)
        # Standard output may carry a result, and nothing else then.
        click.echo(str(output.plans), err=output.targets[0].json is None)


def write_report(results: Sequence[SuiteResult], failures: Mapping[str, str], path: Path) -> None:
    """One report on all results; failures: why a suite has none."""
    from moetui.suites.report import report
    from moetui.trace.file import write_atomically

    write_atomically(path, report(results, failures).encode())
    click.echo(str(path))


def _print(document: bytes) -> None:
    from moetui.errors import RunFailedError

    try:
        sys.stdout.buffer.write(document)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # a reader that wants no more is no failure
        raise
    except OSError as error:
        raise RunFailedError(
            f"cannot write to standard output: {error.strerror}", "give -o a folder"
        ) from error
