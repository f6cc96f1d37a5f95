"""The suite: studies that share their passes, one verdict each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from moetui.suites.moe_dynamics.routing import CALIBRATION, ROUTING, RoutingAnalysis
from moetui.suites.moe_dynamics.study import Setting, Study
from moetui.suites.plan import Analysis
from moetui.suites.results import (
    CellResult,
    Measure,
    Published,
    Verdicts,
    digest,
    measure_name,
)
from moetui.suites.sanity import SanityAnalysis

# Texts on which a model is checked before anything is read from it.
_CHECKED = (
    "127 * 89 = ",
    "def fibonacci(n):",
    "The capital of France is",
    "Once upon a time",
)


class Dynamics:
    """One or more studies as a suite; see `moetui.suites.plan.Suite`."""

    def __init__(
        self,
        name: str,
        question: str,
        parameters: msgspec.Struct,
        studies: Sequence[Study],
        setting: Setting,
    ) -> None:
        self.name, self.question = name, question
        self._parameters, self._studies, self._setting = parameters, tuple(studies), setting
        own = tuple(analysis for study in studies for analysis in study.analyses)
        self.analyses: tuple[Analysis, ...] = (
            SanityAnalysis(_CHECKED, max_tokens=setting.shared.tokens, layers="all"),
            *_shared(own, setting),
            *own,
        )

    @property
    def cost(self) -> str:
        """Of every study."""
        return "; ".join(f"{study.name}: {study.cost}" for study in self._studies)

    @property
    def published(self) -> tuple[Published, ...]:
        """The seed's numbers, named as the measures are."""
        return tuple(
            msgspec.structs.replace(one, measure=measure_name(study.name, one.measure))
            for study in self._studies
            for one in study.published
        )

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models to run on, each once."""
        return tuple(dict.fromkeys(self._setting.shared.models))

    @property
    def parameters(self) -> msgspec.Struct:
        """All parameters, defaults filled in."""
        return self._parameters

    def prompts_digest(self) -> str:
        """Digest over the texts of all studies, and those of the checks."""
        return digest([list(_CHECKED), *(study.texts() for study in self._studies)])

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """Those of every study, its name before theirs: so they have one name in every run."""
        return tuple(
            msgspec.structs.replace(measure, name=measure_name(study.name, measure.name))
            for study in self._studies
            for measure in study.measures(model, cells)
        )

    def conclude(self, cells: Sequence[CellResult]) -> tuple[Verdicts, ...]:
        """One pair of verdicts for every study."""
        return tuple(
            msgspec.structs.replace(study.conclude(cells), topic=study.name)
            for study in self._studies
        )

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """What could not be answered, and what each study says of its numbers."""
        notes = [f"{c.model}, {c.analysis}: {c.reason}" for c in cells if c.reason is not None]
        return (*notes, *(note for study in self._studies for note in study.caveats(cells)))


def _shared(own: Sequence[Analysis], setting: Setting) -> list[Analysis]:
    """The shared passes that any of the analyses needs."""
    needed = {name for analysis in own for name in analysis.needs}
    tokens = setting.shared.tokens
    shared = {
        CALIBRATION: RoutingAnalysis("calibration", setting.calibration, max_tokens=tokens),
        ROUTING: RoutingAnalysis("evaluation", setting.evaluation, max_tokens=tokens),
    }
    return [analysis for name, analysis in shared.items() if name in needed]
