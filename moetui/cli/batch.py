"""`moetui batch`: run experiment suites and write what they find as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moetui.cli.batch_config import config_of, read_options
from moetui.errors import InterruptedRunError, MoetuiError

if TYPE_CHECKING:
    from moetui.cli.batch_output import Output, Target
    from moetui.suites import SuiteResult
    from moetui.suites.config import Config
    from moetui.suites.names import Preset
    from moetui.suites.plan import Suite
    from moetui.suites.ranks import Ranks


@click.command()
@click.argument("suites", metavar="SUITE...", nargs=-1, required=True)
@click.option(
    "-m", "--model", "models", multiple=True, help="demo, a folder, org/name; repeat for several."
)
@click.option(
    "--null-model/--no-null-model",
    help="Run each model again with random weights; say what differs.",
)
@click.option(
    "--corpus",
    metavar="FILE|FOLDER",
    help="Documents in place of the bundled ones: text, JSONL (text, domain), Parquet.",
)
@click.option(
    "--analysis",
    "analyses",
    metavar="NAME",
    multiple=True,
    help="Of moe_dynamics run only this study; repeat for several.",
)
@click.option(
    "--quick", "preset", flag_value="quick", help="A small plan: a look in minutes, wide intervals."
)
@click.option(
    "--full",
    "preset",
    flag_value="full",
    help="All experts and modes, more and longer documents; hours.",
)
@click.option(
    "--parameter",
    "assignments",
    metavar="[SUITE.]KEY=JSON",
    multiple=True,
    help="""Set a parameter, e.g. layers='[0,4]' (see --describe).""",
)
@click.option(
    "--config",
    metavar="FILE.yaml",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=read_options,
    help="Options and parameters of suites; what is given here goes before it.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Of all random draws.",
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
    "--report/--no-report",
    help="Write a Markdown report beside the JSON; one for all SUITEs together.",
)
@click.option(
    "--export-plan",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the plans that were measured (whom to prune, …) as one JSON document.",
)
@click.option(
    "--resume", is_flag=True, help="Take up finished cells of earlier runs (in OUTPUT/.cells)."
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "json", "off"]),
    default="auto",
    show_default=True,
    help="On standard error: a bar on terminals, or one JSON object a line.",
)
@click.option("--describe", is_flag=True, help="Show question, parameters and cost; run nothing.")
@click.option(
    "--print-config", is_flag=True, help="Print everything as a --config file, explained."
)
@click.option("--dry-run", is_flag=True, help="Show the plan; load and run nothing.")
@click.pass_context
def batch(
    ctx: click.Context,
    suites: tuple[str, ...],
    models: tuple[str, ...],
    null_model: bool,
    corpus: str | None,
    analyses: tuple[str, ...],
    preset: Preset | None,
    assignments: tuple[str, ...],
    config: Config | None,
    seed: int,
    output: Path,
    report: bool,
    export_plan: Path | None,
    resume: bool,
    progress: str,
    describe: bool,
    print_config: bool,
    dry_run: bool,
) -> None:
    """Run experiment SUITEs on one or more models.

    Every number of a suite's published definition stands beside the corrected one, with its
    interval, its null and its size. Standard output carries the paths that were written, or with
    `-o -` the JSON; everything else goes to standard error.

    SUITE: attention_router, moe_routing_correlation or moe_dynamics, all for the three, anatomy, or
    a study of moe_dynamics by its name: cold_experts, circuits, generation, interference, merging,
    attention_routing, context_attention_routing, task_aware, manipulation.
    `moetui batch SUITE --describe` says what it asks.

    Every finished cell is kept in OUTPUT/.cells: a run that was cut off goes on with --resume.
    """
    from moetui.cli.batch_output import targets
    from moetui.cli.batch_parameters import parameters
    from moetui.cli.batch_plan import chosen, description, plan_lines
    from moetui.suites.names import expanded
    from moetui.suites.plans import require_plans

    names = expanded(suites)
    given = parameters(names, models, assignments, config)
    picked = chosen(names, given, corpus, preset, analyses)
    if export_plan is not None:
        require_plans(picked)
    if print_config:
        click.echo(config_of(ctx, picked), nl=False)
        return
    if describe or dry_run:
        for suite in picked:
            lines = [description(suite)] if describe else plan_lines(suite, null_model, seed)
            click.echo("\n".join(lines))
        return
    output_plan = targets(output, picked, name="all" if "all" in suites else "batch",
                          report=report, plans=export_plan, resume=resume)  # fmt: skip
    circumstances = {"seed": seed, "null_model": null_model, "resume": resume}
    try:
        whole = _run_all(picked, output_plan, progress, circumstances)
    except KeyboardInterrupt:
        raise _interrupted(output_plan) from None
    if not whole:
        ctx.exit(1)


def _run_all(
    picked: Sequence[Suite], output: Output, progress: str, circumstances: dict[str, Any]
) -> bool:
    """Run every suite, whatever became of those before; whether nothing failed.

    Raises the first error where no suite has a result. Only the first rank tells of failures,
    which all share: at the first that ends with one, mlx.launch ends the others, whatever they do.
    """
    from moetui.cli.batch_output import export_plans, write_report
    from moetui.model.distributed import ranks

    group = ranks()
    errors: dict[str, MoetuiError] = {}
    found: list[SuiteResult] = []
    for suite, place in zip(picked, output.targets, strict=True):
        try:
            found.append(_run(suite, place, progress, group, circumstances))
        except MoetuiError as error:
            if group.rank:
                continue
            errors[suite.name] = error
            if len(errors) == len(picked):
                raise next(iter(errors.values())) from None
            click.echo(f"{suite.name}: {error.message}\nhint: {error.hint}", err=True)
    if not group.rank and output.report is not None:
        write_report(found, {name: error.message for name, error in errors.items()}, output.report)
    if not group.rank:
        export_plans(found, output)
    return not errors and not any(result.failures and not group.rank for result in found)


def _run(
    suite: Suite, place: Target, progress: str, group: Ranks, circumstances: dict[str, Any]
) -> SuiteResult:
    """Run one suite and deliver what it found (on the first of several ranks)."""
    from moetui.cli.batch_output import deliver
    from moetui.cli.batch_progress import drawn
    from moetui.suites import run_prepared

    with drawn("off" if group.rank else progress) as watcher:
        result = run_prepared(
            suite, cells=place.cells, progress=watcher, ranks=group, **circumstances
        )
    if not group.rank:
        deliver(result, place)
    return result


def _interrupted(output: Output) -> InterruptedRunError:
    cells = output.targets[0].cells
    if cells is None:
        return InterruptedRunError(
            "interrupted: with -o - nothing is kept", "give -o a folder, and --resume goes on"
        )
    return InterruptedRunError(
        f"interrupted: finished cells are in {cells / '.cells'}",
        "the same command with --resume goes on from there",
    )
