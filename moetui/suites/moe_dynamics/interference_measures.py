"""The headline numbers of `interference`: what two models, or two runs, are compared by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

from moetui.analyses.better_with_fewer import FewerExperts
from moetui.analyses.expert_interference import ExpertInterference
from moetui.analyses.fewer_experts import CurvePoint
from moetui.analyses.pair_additivity import PairAdditivity
from moetui.analyses.seed_interference import SeedInterference
from moetui.stats import Statistic
from moetui.suites.results import CellResult, Measure

R = TypeVar("R")

CHANGED = "prompts whose continuation changes with one expert"
LINEARITY = "linearity, residual"
COMPATIBLE = "compatible pairs"
BETTER = "documents that do better with one expert"
INDEX = "interference index I, mean of the layers asked for"
SHARE = "cosine of two contributions, mean of the layers asked for"
EXCESS = "I beyond other experts, mean of the layers asked for"
TOP_COSINE = "cosine of the first expert with the mixture, mean of the layers asked for"
CONFIRMED = "inputs picked for fewer experts: change of the loss on new text"
TOGETHER = "pairs chosen together: loss beyond the sum"
DIFFERENCE = "pairs chosen together against random pairs: loss beyond the sum"


def of_type(cells: Sequence[CellResult], kind: type[R]) -> R | None:
    """The result of that type, None where there is none."""
    return next((cell.result for cell in cells if isinstance(cell.result, kind)), None)


def fewest(found: FewerExperts) -> tuple[CurvePoint, ...]:
    """The points with the smallest number of experts, if that is below the native one."""
    least = min((point.experts for point in found.points), default=found.native)
    if least >= found.native:
        return ()
    return tuple(point for point in found.points if point.experts == least)


def curve_name(point: CurvePoint, native: int) -> str:
    """What the change of the loss at a point is called; the same for models of any k."""
    number = (
        "one expert"
        if point.experts == 1
        else "twice the experts"
        if point.experts == 2 * native
        else f"{point.experts} experts"
    )
    return f"loss with {number}, {point.match}"


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """Of one model; a number that is missing is left out."""
    own = [cell for cell in cells if cell.model == model]

    def measure(
        label: Literal["seed", "corrected"],
        name: str,
        one: Statistic,
        units: tuple[float, ...] | None = None,
    ) -> Measure:
        return Measure(model=model, label=label, name=name, statistic=one, units=units)

    return (
        *(measure("seed", *named) for named in _seed(own)),
        *(measure("corrected", *named) for named in _corrected(own)),
    )


def _seed(
    cells: Sequence[CellResult],
) -> Iterator[tuple[str, Statistic, tuple[float, ...] | None]]:
    found = of_type(cells, SeedInterference)
    if found is not None:
        each = found.prompts
        yield CHANGED, found.changed, tuple(float(not one.same) for one in each)
        yield LINEARITY, found.linearity, _units([one.residual for one in each])
        yield COMPATIBLE, found.compatible, _units([one.compatible for one in each])
    numbers = of_type(cells, FewerExperts)
    if numbers is not None and numbers.better.documents_better is not None:
        yield (
            BETTER,
            Statistic(
                value=numbers.better.documents_better / numbers.better.documents,
                n_documents=numbers.better.documents,
                caveat="as picked, and not asked again: no interval, no null",
            ),
            None,
        )


def _units(values: Sequence[float | None]) -> tuple[float, ...] | None:
    """By prompt, None where one of them has no value."""
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _corrected(cells: Sequence[CellResult]) -> Iterator[tuple[str, Statistic]]:
    geometry = of_type(cells, ExpertInterference)
    if geometry is not None:
        yield INDEX, geometry.mean.index
        if geometry.mean.excess is not None:
            yield EXCESS, geometry.mean.excess
        yield SHARE, geometry.mean.share
        yield TOP_COSINE, geometry.mean.top_cosine
    numbers = of_type(cells, FewerExperts)
    if numbers is not None:
        for point in numbers.points:
            if point.experts in (1, 2 * numbers.native):
                yield curve_name(point, numbers.native), point.nll
        if numbers.better.change is not None:
            yield CONFIRMED, numbers.better.change
    pairs = of_type(cells, PairAdditivity)
    if pairs is not None:
        if pairs.mean_together.value is not None:
            yield TOGETHER, pairs.mean_together
        if pairs.difference.value is not None:
            yield DIFFERENCE, pairs.difference
