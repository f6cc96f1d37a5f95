"""What a suite is made of: analyses, each a map over parts and a reduction without the model.

A part is one unit of forward passes: it names everything that it depends on besides model and
seed, so that its outcome can be kept under a hash of just that, taken up again after a run was
cut off, and computed by any of several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from moetui.suites.results import AnalysisResult, CellResult, Measure, Published, Verdicts
from moetui.trace import Forward, ModelInfo

# Texts done so far, texts in all.
Step = Callable[[int, int], None]
# What the analyses before this one left, by name: the partials of each.
Needs = Mapping[str, Sequence[Any]]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work of an analysis.

    name: unique within the analysis, for progress and plan. inputs: a Struct with everything
    that the part depends on besides model and seed: texts, layers as asked for, limits. tokens:
    about how many tokens it will run through the model, None where nobody can tell beforehand.
    """

    name: str
    inputs: Any
    tokens: int | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What an analysis found; with a reason it is inconclusive, and may hold a partial result."""

    result: AnalysisResult | None
    reason: str | None = None


class Analysis(Protocol):
    """A map over parts, each pure and seeded, and a reduction of what they left.

    name: in results and on the command line. needs: names of earlier analyses of the same suite
    whose partials `read` is given. partial_type: what `read` returns; a Struct or dataclass of
    JSON types and numpy arrays, see `moetui.suites.pack`. settings: what `reduce` depends on
    besides what it is given, as JSON types or a Struct; None where that is nothing.
    """

    @property
    def name(self) -> str:
        """Short name."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Analyses that come first."""

    @property
    def partial_type(self) -> Any:
        """Type of what a part leaves."""

    def settings(self, *, seed: int) -> Any:
        """What `reduce` depends on besides what it is given."""

    def unfit(self, info: ModelInfo) -> str | None:
        """Why this cannot be asked of the model, None where it can; an answer, not a failure."""

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """The work, in the order in which `reduce` is given what it leaves."""

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Any:
        """The forward passes of one part; depends on nothing but its arguments."""

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """What the parts together say; no forward pass."""


class Suite(Protocol):
    """An experiment with its parameters set. cost: what a run takes, in words."""

    @property
    def name(self) -> str:
        """On the command line."""

    @property
    def question(self) -> str:
        """What it asks."""

    @property
    def cost(self) -> str:
        """What a run takes."""

    @property
    def published(self) -> tuple[Published, ...]:
        """What the seed's own report gives for real models."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models to run on, each once."""

    @property
    def parameters(self) -> msgspec.Struct:
        """All parameters, defaults filled in."""

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        """In the order in which they run; what one needs stands before it."""

    def prompts_digest(self) -> str:
        """Digest of every text that the parameters name."""

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """The headline numbers of one model: what is compared with a null model or another run."""

    def conclude(self, cells: Sequence[CellResult]) -> tuple[Verdicts, ...]:
        """What the cells of all trained models together say: a pair for every question."""

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """What a reader of the whole must know."""
