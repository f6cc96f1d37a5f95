"""The study `manipulation`: can routing be forced by an input, how hard is it, what does it cost?

The seed asks for tokens that force a sequence of experts, and for robustness; its run never ended.
Here tokens are fitted to calibration contexts and judged in evaluation contexts, beside changes of
the stream and of the logits, all with what random changes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moetui.suites.moe_dynamics import manipulation_verdict
from moetui.suites.moe_dynamics.manipulation_attacks import (
    MisroutingAnalysis,
    ParaphraseAnalysis,
    RobustnessAnalysis,
    SeedManipulationAnalysis,
)
from moetui.suites.moe_dynamics.manipulation_inputs import (
    ManipulationAnalysis,
    ManipulationFitAnalysis,
    TokenScanAnalysis,
)
from moetui.suites.moe_dynamics.manipulation_plan import (
    FULL,
    QUICK,
    Parameters,
    Plan,
    check_lengths,
)
from moetui.suites.moe_dynamics.study import Setting
from moetui.suites.plan import Analysis
from moetui.suites.results import CellResult, Measure, Published, Verdicts

__all__ = ["FULL", "QUICK", "Manipulating", "Parameters", "study"]


class Manipulating:
    """See `moetui.suites.moe_dynamics.study.Study`."""

    name = "manipulation"
    question = "Can inputs be made that force a chosen routing, and how robust is routing?"
    cost = (
        "about half a million short-context tokens by default, a third of them for the search of "
        "tokens; 24 times the vocabulary's size and more where all of it is scanned"
    )
    published: tuple[Published, ...] = ()

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own = own
        plan = Plan(own, setting)
        self.analyses: tuple[Analysis, ...] = (
            TokenScanAnalysis(plan),
            ManipulationFitAnalysis(plan),
            ManipulationAnalysis(plan),
            SeedManipulationAnalysis(plan),
            MisroutingAnalysis(plan),
            RobustnessAnalysis(plan),
            ParaphraseAnalysis(plan),
        )

    def texts(self) -> Any:
        """The seed's prompt, and the one that a sequence is taken from."""
        return [self._own.prompt, self._own.sequence_prompt]

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """Success of every method, attacks, robustness."""
        return tuple(manipulation_verdict.measures(model, cells))

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """The seed's question, and what holds in unseen contexts."""
        return manipulation_verdict.conclude(cells)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """What success does not mean."""
        return (
            "Success of logits raised and of forced experts says that an intervention works, not "
            "that an input could do it; they change every token of the pass.",
            "Tokens that are put in need not be text that anybody would write, and may be special "
            "tokens of the vocabulary.",
            "A model whose output hardly follows its input, as one with random weights, keeps "
            "every attack within a bound of KL; those of two models compare only by their KL.",
        )


def study(own: Parameters, setting: Setting) -> Manipulating:
    """The study with its parameters set. Raises UsageError for contexts longer than documents."""
    check_lengths(own, setting)
    return Manipulating(own, setting)
