"""How the explorer talks to whatever runs the model: commands in, frozen snapshots out.

The explorer knows this Protocol only. The engine that ships runs mlx on one daemon thread
(`moetui.model.engine`); tests drive one by hand; a spawned process could stand in as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

import numpy as np

from moetui.trace.forward import Forward
from moetui.trace.join import join
from moetui.trace.types import Ints, ModelInfo, Trace


class Watcher(Protocol):
    """Whoever follows a study, and may stop it: `show` and `go_on` raise what ends it (no
    Exception, so that nothing on the way takes it for a defect) once it was stopped."""

    def show(self, finding: object) -> None:
        """Let `finding` be the newest."""

    def go_on(self) -> None:
        """Nothing else; the engine calls it before every pass over a text and every token."""

    def leave(self, finding: object) -> None:
        """Let `finding` be the newest and the last: what the study leaves, which was stopped."""


# Work on the loaded model that is no generation: an analysis that asks for forward passes. It
# shows its finding, and may show an ever more complete one while it goes on.
Study = Callable[[Forward, Watcher], None]

Finding = TypeVar("Finding")


def each(
    findings: Callable[[Forward], Iterator[Finding]],
    stopped: Callable[[Finding], Finding | None] = lambda _: None,
) -> Study:
    """The study that shows what `findings` yields, one after the other.

    stopped: what is left of the newest of them when it is stopped, None for no more than it is.
    """

    def study(forward: Forward, watcher: Watcher) -> None:
        newest: Finding | None = None
        try:
            for newest in findings(forward):
                watcher.show(newest)
        except Exception:
            raise
        except BaseException:  # it was stopped, see Watcher
            if newest is not None and (left := stopped(newest)) is not None:
                watcher.leave(left)
            raise

    return study


class Phase(StrEnum):
    """What the engine is doing."""

    EMPTY = "EMPTY"  # no model
    LOADING = "LOADING"
    READY = "READY"
    RUNNING = "RUNNING"
    STUDYING = "STUDYING"


class Ending(StrEnum):
    """Why a run came to its end."""

    RUNNING = "running"
    LENGTH = "length"
    END_OF_TEXT = "end of text"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """What went wrong, and what to do about it (as `MoetuiError`)."""

    message: str
    hint: str


class Recording:
    """Everything one run produced: the prompt's trace, then one single-row trace a token.

    The engine appends, the explorer reads rows below the count that a snapshot promised: a row,
    once there, never changes, so no lock is needed.
    """

    def __init__(self, prompt: Trace) -> None:
        self.prompt = prompt
        self._steps: list[Trace] = []

    @property
    def rows(self) -> int:
        """Rows recorded so far."""
        return len(self.prompt) + len(self._steps)

    def append(self, step: Trace) -> None:
        """Add one generated token (a trace of one row)."""
        if len(step) != 1:
            raise ValueError(f"a step is one row, not {len(step)}")
        self._steps.append(step)

    def locate(self, row: int) -> tuple[Trace, int]:
        """The trace that holds `row`, and the row's index in it."""
        length = len(self.prompt)
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of {self.rows}")
        return (self.prompt, row) if row < length else (self._steps[row - length], 0)

    def token_ids(self, rows: int) -> Ints:
        """int32 [rows], the tokens of the first `rows` rows."""
        steps = [step.token_ids for step in self._steps[: max(rows - len(self.prompt), 0)]]
        ids: Ints = np.concatenate([self.prompt.token_ids, *steps])[:rows]
        return ids

    def trace(self, rows: int | None = None) -> Trace:
        """One trace of the first `rows` rows (all by default)."""
        rows = self.rows if rows is None else rows
        length = len(self.prompt)
        if rows <= length:
            return self.prompt.rows(0, rows)
        return join([self.prompt, *self._steps[: rows - length]])


@dataclass(frozen=True)
class Snapshot:
    """The newest state, whole: draw it and nothing else is needed.

    version rises with every change. rows is how many rows of `recording` are complete.
    run counts the runs of this session, so that a new prompt is seen as new.
    tokens_per_second is that of the current or last generation, memory_bytes the engine's own.
    finding is the newest that the current or last study showed: it is about this model and this
    recording, so another of either takes it away, and so does the next study. left is what the last
    study that was stopped has left; only another model takes it away, so that it is seen even where
    something else begins at once.
    """

    version: int = 0
    phase: Phase = Phase.EMPTY
    detail: str = ""
    model: ModelInfo | None = None
    failure: Failure | None = None
    recording: Recording | None = None
    rows: int = 0
    run: int = 0
    ending: Ending = Ending.LENGTH
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    finding: object | None = None
    left: object | None = None
    log: tuple[str, ...] = field(default=())


class Engine(Protocol):
    """What the explorer may ask for. Every call returns at once; results are in `snapshot()`."""

    def load(self, model: str) -> None:
        """Load `model` (a name, folder or Hugging Face id); the model before it is freed."""

    def run(self, prompt: str, max_tokens: int) -> None:
        """Trace `prompt`, then generate up to `max_tokens` tokens greedily."""

    def study(self, job: Study) -> None:
        """Run `job` on the model after what is under way, and keep what it shows as `finding`.

        A run, a load and another study take its place: it ends before its next forward pass. One
        that finds another model or recording than those it was asked of is left out.
        """

    def cancel(self) -> None:
        """Stop what is under way: a run within one token, a load at its next step, a study before
        its next forward pass. What a study has found so far stays."""

    def close(self) -> None:
        """End the engine; never waits for a load or a run."""

    def snapshot(self) -> Snapshot:
        """The newest state."""
