"""An engine that is driven by hand: it does nothing until the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from moetui.trace import Ending, Failure, Forward, Phase, Recording, Snapshot, Study, Trace
from moetui.trace.types import ModelInfo


class Shown:
    """Implements the Watcher protocol: keeps what a study shows."""

    def __init__(self) -> None:
        self.findings: list[object] = []

    def show(self, finding: object) -> None:
        self.findings.append(finding)

    def go_on(self) -> None:
        pass

    def leave(self, finding: object) -> None:
        raise AssertionError("nothing stops it here")


class FakeEngine:
    """Implements the Engine protocol; `calls` says what the explorer asked for.

    The rows of `whole` are what every run yields: `prefill` gives the prompt's, `step` one more.
    """

    def __init__(self, whole: Trace) -> None:
        self.whole = whole
        self.calls: list[tuple[object, ...]] = []
        self._snapshot = Snapshot()
        self._findings: Iterator[object] = iter(())
        self._job: Study | None = None

    # What the explorer calls.

    def load(self, model: str) -> None:
        self.calls.append(("load", model))
        self.say(
            phase=Phase.LOADING, model=None, recording=None, rows=0, failure=None, finding=None
        )

    def run(self, prompt: str, max_tokens: int) -> None:
        self.calls.append(("run", prompt, max_tokens))
        self.say(phase=Phase.RUNNING, failure=None, finding=None)

    def study(self, job: Study) -> None:
        self.calls.append(("study",))
        self._job = job
        self.say(phase=Phase.STUDYING, failure=None, finding=None)

    def cancel(self) -> None:
        self.calls.append(("cancel",))
        if self._snapshot.phase is Phase.RUNNING:
            self.say(phase=Phase.READY, ending=Ending.CANCELLED)
        elif self._snapshot.phase is Phase.STUDYING:
            self.say(phase=Phase.READY)
        elif self._snapshot.phase is Phase.LOADING:
            self.say(phase=Phase.EMPTY, detail="")

    def close(self) -> None:
        self.calls.append(("close",))

    def snapshot(self) -> Snapshot:
        return self._snapshot

    # What the test calls.

    def say(self, **changes: object) -> None:
        """A new snapshot with `changes`."""
        version = self._snapshot.version + 1
        self._snapshot = replace(self._snapshot, version=version, **changes)  # type: ignore[arg-type]

    def ready(self, model: ModelInfo | None = None) -> None:
        """The load is done."""
        self.say(
            phase=Phase.READY, model=model or self.whole.model, detail="", memory_bytes=84_000_000
        )

    def prefill(self, whole: Trace | None = None) -> None:
        """The prompt's rows are there: of the usual run, or of another one."""
        self.whole = whole or self.whole
        recording = Recording(self.whole.rows(0, self.whole.prompt_tokens))
        run = self._snapshot.run + 1
        self.say(
            phase=Phase.RUNNING,
            recording=recording,
            rows=recording.rows,
            run=run,
            ending=Ending.RUNNING,
        )

    def step(self, count: int = 1) -> None:
        """`count` more tokens, one snapshot each."""
        recording = self._snapshot.recording
        assert recording is not None
        for _ in range(count):
            row = recording.rows
            recording.append(self.whole.rows(row, row + 1))
            self.say(rows=recording.rows, tokens_per_second=23.4)

    def finish(self) -> None:
        """All remaining tokens, and the end of the run."""
        recording = self._snapshot.recording
        assert recording is not None
        self.step(len(self.whole) - recording.rows)
        self.say(phase=Phase.READY, ending=Ending.LENGTH)

    def find(self, forward: Forward, count: int | None = None) -> None:
        """The next `count` findings of the study that was asked for; without it, all of them."""
        if self._job is not None:
            shown = Shown()
            job, self._job = self._job, None
            job(forward, shown)
            self._findings = iter(shown.findings)
        for finding in self._findings if count is None else islice(self._findings, count):
            self.say(finding=finding)
        if count is None:
            self.say(phase=Phase.READY)

    def fail(self, message: str, hint: str, phase: Phase = Phase.EMPTY) -> None:
        """What was going on has failed."""
        self.say(phase=phase, failure=Failure(message, hint), ending=Ending.FAILED)
