"""A saved trace in place of a running model: the explorer looks at it as at a run that ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from moetui.trace.engine import Ending, Engine, Failure, Phase, Recording, Snapshot, Study
from moetui.trace.types import Trace

SAVED = "saved trace"


class Replay:
    """An Engine without a model. Opening a model starts the real one, which then takes over.

    make_engine: makes the real one; called once at most, on the first `load`.
    """

    def __init__(self, trace: Trace, make_engine: Callable[[], Engine]) -> None:
        recording = recorded(trace)
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._name = trace.model.name
        self._own = Snapshot(
            version=1,
            phase=Phase.READY,
            detail=SAVED,
            model=trace.model,
            recording=recording,
            rows=recording.rows,
            run=1,
        )

    def load(self, model: str) -> None:
        """Let the real engine load `model`; the trace is gone from then on."""
        if self._engine is None:
            self._engine = self._make_engine()
        self._engine.load(model)

    def run(self, prompt: str, max_tokens: int) -> None:
        """Refused while there is no model."""
        if self._engine is None:
            self._refuse("a saved trace cannot run another prompt")
        else:
            self._engine.run(prompt, max_tokens)

    def study(self, job: Study) -> None:
        """Refused while there is no model."""
        if self._engine is None:
            self._refuse("a saved trace cannot say what the model would have done")
        else:
            self._engine.study(job)

    def cancel(self) -> None:
        """Nothing is under way in a saved trace."""
        if self._engine is not None:
            self._engine.cancel()

    def close(self) -> None:
        """End the real engine, if it was made."""
        if self._engine is not None:
            self._engine.close()

    def snapshot(self) -> Snapshot:
        """The trace as a run that has ended, or the real engine's newest state."""
        if self._engine is None:
            return self._own
        # Versions and runs go on counting, so that what comes is seen as new.
        newest = self._engine.snapshot()
        return replace(
            newest, version=self._own.version + 1 + newest.version, run=self._own.run + newest.run
        )

    def _refuse(self, why: str) -> None:
        failure = Failure(f"{why}: no model is open", f"press o to open {self._name}, or another")
        self._own = replace(
            self._own, version=self._own.version + 1, failure=failure, ending=Ending.LENGTH
        )


def recorded(trace: Trace) -> Recording:
    """`trace` as the recording of a run: the prompt, then one token after the other."""
    prompt = trace.prompt_tokens or len(trace)
    recording = Recording(trace.rows(0, prompt))
    for row in range(prompt, len(trace)):
        recording.append(trace.rows(row, row + 1))
    return recording
