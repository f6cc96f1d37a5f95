"""The headline numbers of `moe_routing_correlation`, under names that fit every model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moetui.analyses.expert_words import ExpertWords
from moetui.analyses.probes import Probes
from moetui.analyses.task_accuracy import TaskAccuracy
from moetui.analyses.tuned_lens import LensFidelity
from moetui.analyses.virtual_experts import VirtualExperts
from moetui.analyses.vocabulary_alignment import PromptSetAlignment, Values, VocabularyAlignment
from moetui.suites.moe_routing_correlation_tasks import (
    accuracy_measures,
    probe_measures,
    virtual_expert_measures,
)
from moetui.suites.results import CellResult, Measure

PEAK = "vocabulary alignment, peak layer"


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """All of them, in the order of the analyses."""
    return tuple(measure for cell in cells for measure in _of(model, cell))


def seed_set(found: VocabularyAlignment) -> PromptSetAlignment:
    """The seed's prompts."""
    return found.sets[0]


def larger_set(found: VocabularyAlignment) -> PromptSetAlignment | None:
    """The set that the corrected numbers are of; None where none was read."""
    return found.sets[1] if len(found.sets) > 1 else None


def _of(model: str, cell: CellResult) -> Iterator[Measure]:
    match cell.result:
        case VocabularyAlignment() as found:
            yield from _seed_measures(model, seed_set(found))
            yield from _corrected_measures(model, larger_set(found))
        case LensFidelity() as found:
            yield from _fidelity_measures(model, found)
        case ExpertWords() as found:
            yield Measure(
                model=model,
                label="corrected",
                name="largest |rho| of an expert's weight and the task's words",
                statistic=found.largest,
            )
        case Probes() as found:
            yield from probe_measures(model, found)
        case TaskAccuracy() as found:
            yield from accuracy_measures(model, found)
        case VirtualExperts() as found:
            yield from virtual_expert_measures(model, found)


def _seed_measures(model: str, prompts: PromptSetAlignment) -> Iterator[Measure]:
    layers = [layer.layer for layer in prompts.layers]
    peak = layers.index(prompts.peak_layer)
    rows = [(PEAK, prompts.peak, peak)]
    for at, layer in enumerate(prompts.layers):
        rows.append((f"vocabulary alignment, {layer.depth:.0%} depth", layer.seed, at))
    for name, statistic, at in rows:
        units = _units([prompt.seed for prompt in prompts.prompts], at)
        yield Measure(model=model, label="seed", name=name, statistic=statistic, units=units)


def _corrected_measures(model: str, prompts: PromptSetAlignment | None) -> Iterator[Measure]:
    for mean in () if prompts is None else prompts.means:
        for name, statistic in (
            ("probability of unsaid task words", mean.probability),
            ("log-odds of own task words over other tasks'", mean.specificity),
        ):
            yield Measure(
                model=model,
                label="corrected",
                name=f"{name}, {mean.lens} lens, mean over layers",
                statistic=statistic,
            )


def _fidelity_measures(model: str, found: LensFidelity) -> Iterator[Measure]:
    middle = found.layers[len(found.layers) // 2]
    for lens, statistic in (("raw", middle.raw), ("tuned", middle.tuned)):
        if statistic is not None:
            yield Measure(
                model=model,
                label="corrected",
                name=f"KL to the output at 50 % depth, {lens} lens",
                statistic=statistic,
            )


def _units(rows: Sequence[Values], at: int) -> tuple[float, ...] | None:
    values = [row[at] for row in rows]
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None
