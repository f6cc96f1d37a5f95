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
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from moetui.errors import MoetuiError
from moetui.trace import Ending, Failure, Phase, Recording, Snapshot

if TYPE_CHECKING:
    from moetui.model.model import Model

_LOG_LINES = 200
# Weight of the newest token in the displayed speed.
_SMOOTHING = 0.1


class _CancelledError(Exception):
    """Raised inside a load that the user stopped."""


class EngineThread:
    """Implements `moetui.trace.Engine`; making one is cheap and imports no mlx."""

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._snapshot = Snapshot()
        self._publishing = threading.Lock()
        self._model: Model | None = None
        self._closed = False
        threading.Thread(target=self._serve, name="moetui-engine", daemon=True).start()

    def load(self, model: str) -> None:
        """Load `model` once the current work has stopped."""
        self._submit(lambda: self._load(model))

    def run(self, prompt: str, max_tokens: int) -> None:
        """Trace and continue `prompt` once the current work has stopped."""
        self._submit(lambda: self._run(prompt, max_tokens))

    def cancel(self) -> None:
        """Stop what is under way: a run within one token, a load at its next step."""
        self._cancel.set()

    def close(self) -> None:
        """End the engine without waiting for it."""
        self._closed = True
        self._cancel.set()
        self._commands.put(None)

    def snapshot(self) -> Snapshot:
        """The newest state; safe from any thread."""
        return self._snapshot

    def _submit(self, command: Callable[[], None]) -> None:
        self._cancel.set()
        self._commands.put(command)

    def _serve(self) -> None:
        while (command := self._commands.get()) is not None:
            if not self._commands.empty():
                continue  # a newer command has overtaken this one
            self._cancel.clear()
            if self._closed:
                return
            try:
                command()
            except MoetuiError as error:
                self._fail(Failure(error.message, error.hint))
            except Exception as error:  # the explorer must live on, whatever a model does
                self._fail(
                    Failure(
                        f"{type(error).__name__}: {error}",
                        "this is a defect of moetui or mlx; `--debug` shows the whole story",
                    )
                )

    def _publish(self, **changes: object) -> None:
        """Replace the snapshot by a newer one."""
        with self._publishing:
            self._snapshot = replace(
                self._snapshot,
                version=self._snapshot.version + 1,
                **changes,  # type: ignore[arg-type]
            )

    def _note(self, line: str) -> None:
        log = (*self._snapshot.log, f"{time.strftime('%H:%M:%S')} {line}")
        self._publish(log=log[-_LOG_LINES:])

    def _fail(self, failure: Failure) -> None:
        self._note(f"{failure.message} ({failure.hint})")
        phase = Phase.READY if self._model is not None else Phase.EMPTY
        self._publish(phase=phase, detail="", failure=failure, ending=Ending.FAILED)

    def _load(self, name: str) -> None:
        from moetui.model.load import load

        self._forget_model()
        self._note(f"loading {name}")
        self._publish(phase=Phase.LOADING, detail=name, failure=None)
        try:
            self._model = load(name, progress=self._step)
        except _CancelledError:
            self._note(f"stopped loading {name}")
            self._publish(phase=Phase.EMPTY, detail="")
            return
        info = self._model.info
        self._note(f"{name} ready: {info.num_layers} layers, {info.num_experts} experts")
        self._publish(phase=Phase.READY, detail="", model=info, memory_bytes=self._memory(), rows=0)

    def _step(self, step: str) -> None:
        if self._cancel.is_set():
            raise _CancelledError
        self._note(step)
        self._publish(detail=step)

    def _forget_model(self) -> None:
        """Free the model before the next one is loaded, so that both need not fit."""
        if self._model is None:
            return
        import gc

        import mlx.core as mx

        self._model = None
        self._publish(phase=Phase.EMPTY, model=None, recording=None, rows=0)
        gc.collect()
        mx.clear_cache()

    def _run(self, prompt: str, max_tokens: int) -> None:
        model = self._model
        if model is None:
            raise MoetuiError("no model is loaded", "press o and choose one")
        self._publish(phase=Phase.RUNNING, failure=None, ending=Ending.RUNNING, detail="reading")
        generation = model.generate(prompt, max_tokens, cancel=self._cancel)
        recording = Recording(generation.prompt)
        self._publish(
            recording=recording,
            rows=recording.rows,
            run=self._snapshot.run + 1,
            detail="",
            tokens_per_second=None,
        )
        speed, before = None, time.perf_counter()
        for step in generation:
            recording.append(step)
            now = time.perf_counter()
            rate = 1 / max(now - before, 1e-9)
            speed = rate if speed is None else speed + _SMOOTHING * (rate - speed)
            before = now
            self._publish(rows=recording.rows, tokens_per_second=speed)
        self._publish(phase=Phase.READY, ending=generation.ending, memory_bytes=self._memory())
        self._note(f"{recording.rows} tokens traced, {generation.ending}")

    def _memory(self) -> int:
        """Bytes that mlx holds now."""
        import mlx.core as mx

        return int(mx.get_active_memory())
