"""What a pane draws from: the newest snapshot, the shared cursor, the mode and the session.

A pane is a pure function of a `Moment`. So replay, export, comparison and screenshots all come
from the same code, and what is exported is what was on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from moetui.analyses.alignment import Context
from moetui.analyses.expert_dossier import DossierSoFar
from moetui.analyses.expert_load import RunLoad
from moetui.suites.live import SuiteRun
from moetui.trace import Snapshot, Trace
from moetui.tui.change import Choice

if TYPE_CHECKING:
    from moetui.suites import SuiteResult


@dataclass(frozen=True)
class Cursor:
    """The one cursor: a row of the recording, a decoder layer (0 … N-1), an expert (0 … E-1)."""

    token: int = 0
    layer: int = 0
    expert: int = 0


class Mode(StrEnum):
    """What the routing map shows."""

    TOKEN = "token"
    SESSION = "session"  # Σ: cumulative over the session's runs
    DIFFERENCE = "difference"  # Δ: B, the token at the cursor, less A, the one that was kept


@dataclass(frozen=True)
class OpenedResult:
    """A batch result and the name of the file that it was read from."""

    file: str
    result: SuiteResult


def suite_run(snapshot: Snapshot) -> SuiteRun | None:
    """The run of a suite that the newest finding of `snapshot` is about."""
    return snapshot.finding if isinstance(snapshot.finding, SuiteRun) else None


def dossier_of(snapshot: Snapshot) -> DossierSoFar | None:
    """The dossier that the newest finding of `snapshot` is."""
    return snapshot.finding if isinstance(snapshot.finding, DossierSoFar) else None


@dataclass(frozen=True)
class Moment:
    """Everything a pane may look at. `runs` holds the expert counts of each run so far, the newest
    last; `kept` is A, the token that others are compared with, None before one was kept; `choice`
    is what would be changed next; `result` is the batch result that was opened, if one was;
    `dossier` is the newest one of the session, which other findings do not replace."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    cursor: Cursor = field(default_factory=Cursor)
    mode: Mode = Mode.TOKEN
    runs: tuple[RunLoad, ...] = ()
    kept: Context | None = None
    choice: Choice = field(default_factory=Choice)
    result: OpenedResult | None = None
    dossier: DossierSoFar | None = None

    @property
    def dossier_so_far(self) -> DossierSoFar | None:
        """The newest dossier, in the snapshot or kept."""
        return dossier_of(self.snapshot) or self.dossier

    @property
    def located(self) -> tuple[Trace, int] | None:
        """The trace and the index in it that the cursor's token points to."""
        recording, rows = self.snapshot.recording, self.snapshot.rows
        if recording is None or not 0 <= self.cursor.token < rows:
            return None
        return recording.locate(self.cursor.token)

    @property
    def pair(self) -> tuple[Context, Context] | None:
        """A, the token that was kept, and B, the one at the cursor; None without both."""
        recording = self.snapshot.recording
        if self.kept is None or recording is None or self.located is None:
            return None
        return self.kept, Context(recording, self.snapshot.rows, self.cursor.token)
