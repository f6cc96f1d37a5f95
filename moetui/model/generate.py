"""Generation with capture: mlx-lm's own loop, one single-row Trace a token."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step, generation_stream
from mlx_lm.models.cache import make_prompt_cache

from moetui.model.edits import NONE, Edits
from moetui.model.lens import LazyLens, readout
from moetui.model.readings import LazyReadings
from moetui.model.records import PassRecord, Want
from moetui.trace import Ending, Trace

if TYPE_CHECKING:
    from moetui.model.model import Ids, Model

_Pass = tuple[LazyReadings, LazyLens | None]


class Generation:
    """A greedy generation: `prompt` is traced at once, iterating yields the tokens after it.

    Every yielded Trace holds one row: the token, the routing of the pass that read it, and
    `logits` that predict the next. mlx-lm's loop runs one pass ahead, so that pass is already
    there when the token is yielded; its captures were started together with it and cost no
    waiting. The taps are on only while a pass is being built, so a generation may be left at any
    point. `ending` says why it ended.
    """

    def __init__(
        self,
        model: Model,
        ids: Ids,
        max_tokens: int,
        want: Want,
        *,
        lens: int,
        cancel: threading.Event | None,
        edits: Edits = NONE,
    ) -> None:
        self._model, self._want, self._lens = model, want, lens
        self._max_tokens, self._edits = max_tokens, edits
        self._cancel = cancel or threading.Event()
        self._cache = make_prompt_cache(model.network)
        self._passes: deque[_Pass] = deque()
        with mx.stream(generation_stream):
            self.prompt: Trace = model.prefill(ids, self._cache, want, lens=lens, edits=edits)
        self.ending = Ending.LENGTH if max_tokens <= 0 else Ending.RUNNING

    def __iter__(self) -> Iterator[Trace]:
        if self._max_tokens <= 0:
            return
        token = _greedy(self.prompt)
        # mlx-lm reads this token first: its passes follow the prompt's in the same cache.
        steps = generate_step(
            mx.array([token]),
            self._model.network,
            max_tokens=self._max_tokens - 1,
            prompt_cache=self._cache,
        )
        self.ending = Ending.LENGTH
        for _ in range(self._max_tokens):
            if self._cancel.is_set():
                self.ending = Ending.CANCELLED
                return
            self._model.before_pass()
            with self._model.capture.on(self._want, self._note, self._edits):
                following = next(steps, None)
            yield self._step(token)
            if token in self._model.tokenizer.eos_token_ids:
                self.ending = Ending.END_OF_TEXT
                return
            if following is not None:
                token = following[0]

    def _note(self, record: PassRecord) -> None:
        """Called as soon as a pass is built: start its readings right behind it."""
        model = self._model
        readings = model.readings(record, self._want)
        lens = model.lazy_lens(record, self._lens)
        mx.async_eval(*readings.arrays(), *(lens.arrays() if lens else ()))
        self._passes.append((readings, lens))

    def _step(self, token: int) -> Trace:
        readings, lazy = self._passes.popleft()
        lens = None
        if lazy is not None:
            lens = readout(
                [lazy],
                layers=self._model.info.num_layers,
                positions=np.zeros(1, np.int32),
                token_text=self._model.texts.text,
            )
        ids = np.array([token], np.int32)
        return self._model.make_trace(ids, readings, lens, prompt_tokens=0, edits=self._edits)


def _greedy(trace: Trace) -> int:
    """The most probable next token; the first of equals, as mlx-lm's greedy sampler."""
    return int(trace.logits.argmax())
