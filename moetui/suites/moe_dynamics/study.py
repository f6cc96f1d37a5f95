"""What each of the nine studies of `moe_dynamics` is to the suite that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec

from moetui.suites.documents import Documents
from moetui.suites.layers import MEANING, LayersAsked
from moetui.suites.plan import Analysis
from moetui.suites.results import CellResult, Measure, Published, Verdicts

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Shared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all studies have in common."""

    models: Annotated[
        tuple[Text, ...],
        msgspec.Meta(min_length=1, description="models to run on: demo, a folder, org/name"),
    ] = ("demo",)
    layers: Annotated[
        LayersAsked,
        msgspec.Meta(description=f"where interventions are made: {MEANING}"),
    ] = ("first", "mid", "last")
    documents: Annotated[
        Positive,
        msgspec.Meta(
            description="how many evaluation documents of the corpus everything is judged on; ΔNLL "
            "of one expert needs 200, load 30, and below a tenth of that the corrected verdict is "
            "inconclusive"
        ),
    ] = 200
    calibration_documents: Annotated[
        Positive,
        msgspec.Meta(
            description="how many calibration documents, none of which is an evaluation document, "
            "scores, merges and predictors are fitted on"
        ),
    ] = 200
    tokens: Annotated[
        Positive, msgspec.Meta(description="tokens to which each document is cut")
    ] = 64


@dataclass(frozen=True, eq=False, kw_only=True)
class Setting:
    """What a study is given: the parameters that all share, and the documents of a run."""

    shared: Shared
    evaluation: Documents
    calibration: Documents
    corpus: str | Path | None


class Study(Protocol):
    """One of the nine: its analyses, and what they say.

    name: as on the command line; it is the topic of its verdicts and stands before its measures.
    question, cost: in words. analyses: its own ones, in order; they may need those of
    `moetui.suites.moe_dynamics.routing` by name. published: the seed's own numbers.
    """

    @property
    def name(self) -> str:
        """On the command line."""

    @property
    def question(self) -> str:
        """What it asks."""

    @property
    def cost(self) -> str:
        """What it takes."""

    @property
    def published(self) -> tuple[Published, ...]:
        """What the seed's own report gives for real models."""

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        """In the order in which they run."""

    def texts(self) -> Any:
        """Every text that its parameters name, as JSON types, for the digest of prompts."""

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """The headline numbers of one model; `cells` are those of all studies."""

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """What the cells of all trained models together say; `cells` are those of all studies."""

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """What a reader of its numbers must know."""


class StudyModule(Protocol):
    """What a module of a study has.

    Parameters: its own ones, a Struct with a default for everything. QUICK, FULL: those that
    differ under --quick and --full.
    """

    Parameters: type[msgspec.Struct]
    QUICK: Mapping[str, Any]
    FULL: Mapping[str, Any]

    def study(self, own: Any, setting: Setting) -> Study:
        """The study with its parameters set."""
