"""The engine that ships: mlx on one daemon thread of its own.

A lazy array can be evaluated only on the thread that built it, so this thread alone imports
mlx, loads, runs and evaluates. Commands enter by a queue; state leaves as the newest frozen
snapshot; only numpy and plain Python cross. The thread is a daemon and nobody joins it: the
explorer can quit at any moment, in the middle of a load too.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moetui.errors import MoetuiError
from moetui.trace import (
    Ending,
    Failure,
    Phase,
    Recording,
    Snapshot,
    Study,
)

if TYPE_CHECKING:
    from moetui.model.model import Model

_LOG_LINES = 200
# The displayed speed is that of the last so many tokens.
_SPEED_OVER = 16


class _StoppedError(BaseException):
    """Raised inside a load or a study that the user stopped. No Exception: a suite reports those
    of an analysis and goes on with the next one."""


@dataclass(frozen=True)
class _Command:
    """Something to do, and the event that stops it."""

    act: Callable[[], None]
    stop: threading.Event


@dataclass(frozen=True)
class _Watching:
    """Implements `moetui.trace.Watcher` for one study."""

    publish: Callable[..., None]
    stop: threading.Event

    def show(self, finding: object) -> None:
        """Let `finding` be the newest."""
        self.go_on()
        self.publish(finding=finding)

    def go_on(self) -> None:
        """Raises _StoppedError once the study was stopped."""
        if self.stop.is_set():
            raise _StoppedError

    def leave(self, finding: object) -> None:
        """Let `finding` be the newest, and what is left."""
        self.publish(finding=finding, left=finding)


class EngineThread:
    """Implements `moetui.trace.Engine`; making one is cheap and imports no mlx."""

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        # Set to stop the newest of each, under way or still waiting.
        self._stop_load, self._stop_run = threading.Event(), threading.Event()
        self._stop_study = threading.Event()
        self._snapshot = Snapshot()
        self._model: Model | None = None
        threading.Thread(target=self._serve, name="moetui-engine", daemon=True).start()

    def load(self, model: str) -> None:
        """Load `model`; whatever is under way or waiting is stopped first."""
        self.cancel()
        self._stop_load = stop = threading.Event()
        self._commands.put(_Command(lambda: self._load(model, stop), stop))

    def run(self, prompt: str, max_tokens: int) -> None:
        """Trace and continue `prompt`: after a load that is under way, instead of anything else."""
        self._stop_run.set()
        self._stop_study.set()
        self._stop_run = stop = threading.Event()
        self._commands.put(_Command(lambda: self._run(prompt, max_tokens, stop), stop))

    def study(self, job: Study) -> None:
        """Run `job` on the model: after a load or run that is under way, instead of a study."""
        self._stop_study.set()
        self._stop_study = stop = threading.Event()
        asked_of = self._snapshot
        self._commands.put(_Command(lambda: self._study(job, stop, asked_of), stop))

    def cancel(self) -> None:
        """Stop what is under way: see `moetui.trace.Engine`."""
        self._stop_load.set()
        self._stop_run.set()
        self._stop_study.set()

    def close(self) -> None:
        """End the engine without waiting for it."""
        self.cancel()
        self._commands.put(None)

    def snapshot(self) -> Snapshot:
        """The newest state; safe from any thread."""
        return self._snapshot

    def _serve(self) -> None:
        while (command := self._commands.get()) is not None:
            if command.stop.is_set():
                continue  # stopped before it began, or overtaken by a newer one
            try:
                command.act()
            except MoetuiError as error:
                self._fail(Failure(error.message, error.hint))
            except Exception as error:  # the explorer must live on, whatever a model does
                self._fail(
                    Failure(
                        f"{type(error).__name__}: {error}",
                        "this is a defect of moetui or mlx; `--debug` shows the whole story",
                    )
                )

    def _publish(self, **changes: Any) -> None:
        """Replace the snapshot by a newer one; only the engine's own thread does this."""
        self._snapshot = replace(self._snapshot, version=self._snapshot.version + 1, **changes)

    def _note(self, line: str) -> None:
        log = (*self._snapshot.log, f"{time.strftime('%H:%M:%S')} {line}")
        self._publish(log=log[-_LOG_LINES:])

    def _fail(self, failure: Failure) -> None:
        self._note(f"{failure.message} ({failure.hint})")
        phase = Phase.READY if self._model is not None else Phase.EMPTY
        # A study that failed leaves the run before it as it ended.
        ended = self._snapshot.ending if self._snapshot.phase is Phase.STUDYING else Ending.FAILED
        self._publish(phase=phase, detail="", failure=failure, ending=ended)

    def _load(self, name: str, stop: threading.Event) -> None:
        from moetui.model.load import load

        self._note(f"loading {name}")
        self._publish(phase=Phase.LOADING, detail=name, failure=None)
        if self._model is not None:
            # A bad name or checkpoint must not cost the model that works.
            from moetui.model.checkpoint import check
            from moetui.model.load import require_memory
            from moetui.model.locate import locate

            require_memory(check(locate(name)), name, freed=self._model.info.weight_bytes)
            self._forget_model()
        try:
            self._model = load(name, progress=lambda step: self._step(step, stop))
        except _StoppedError:
            self._note(f"stopped loading {name}")
            self._publish(phase=Phase.EMPTY, detail="")
            return
        info = self._model.info
        self._note(f"{name} ready: {info.num_layers} layers, {info.num_experts} experts")
        self._publish(phase=Phase.READY, detail="", model=info, memory_bytes=self._memory(), rows=0)

    def _step(self, step: str, stop: threading.Event) -> None:
        if stop.is_set():
            raise _StoppedError
        self._publish(detail=step)

    def _forget_model(self) -> None:
        """Free the model before the next one is loaded, so that both need not fit."""
        if self._model is None:
            return
        from moetui.model.release import free_unused

        self._model = None
        self._publish(
            model=None, recording=None, rows=0, tokens_per_second=None, finding=None, left=None
        )
        free_unused()

    def _run(self, prompt: str, max_tokens: int, stop: threading.Event) -> None:
        model = self._model
        if model is None:
            raise MoetuiError("no model is loaded", "press o and choose one")
        self._publish(
            phase=Phase.RUNNING,
            failure=None,
            ending=Ending.RUNNING,
            detail="reading",
            tokens_per_second=None,
            finding=None,
        )
        generation = model.generate(prompt, max_tokens, cancel=stop)
        recording = Recording(generation.prompt)
        self._publish(
            recording=recording,
            rows=recording.rows,
            run=self._snapshot.run + 1,
            detail="",
        )
        times = deque([time.perf_counter()], maxlen=_SPEED_OVER + 1)
        for step in generation:
            recording.append(step)
            times.append(time.perf_counter())
            speed = (len(times) - 1) / max(times[-1] - times[0], 1e-9)
            self._publish(rows=recording.rows, tokens_per_second=speed)
        self._publish(phase=Phase.READY, ending=generation.ending, memory_bytes=self._memory())
        self._note(f"{recording.rows} tokens traced, {generation.ending}")

    def _study(self, job: Study, stop: threading.Event, asked_of: Snapshot) -> None:
        if self._model is None:
            raise MoetuiError("no model is loaded", "press o and choose one")
        now = self._snapshot
        if now.model is not asked_of.model or now.recording is not asked_of.recording:
            self._note("a study was left out: it was asked of another model or run")
            return
        watcher = _Watching(self._publish, stop)
        self._publish(phase=Phase.STUDYING, failure=None, detail="", finding=None)
        try:
            with self._model.before_passes(watcher.go_on):
                job(self._model, watcher)
        except _StoppedError:
            self._note("stopped a study")
        self._publish(phase=Phase.READY, memory_bytes=self._memory())

    def _memory(self) -> int:
        """Bytes that mlx holds now."""
        import mlx.core as mx

        return int(mx.get_active_memory())
