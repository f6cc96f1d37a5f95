"""Words through the lens: what every layer gives to chosen tokens, raw or through translators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.errors import UsageError
from moetui.model.lens import Lens
from moetui.model.likelihood import divergence
from moetui.model.tuned_lens import Recipe, States, fit, translate
from moetui.trace import ModelInfo, TunedLens, WordReadout

Ids = NDArray[np.int32]
# The residual stream after every layer at all positions of ids, [T, N, H], not evaluated.
Run = Callable[[Ids], mx.array]

# Of the residual streams that a tuned lens is fitted to, which are held in memory.
FIT_BYTES = 1 << 29
_FEWEST = 2  # documents on either side of a fit


class LensWords:
    """Reads chosen tokens at every layer of one model, and fits its tuned lens."""

    def __init__(self, reader: Lens, info: ModelInfo, run: Run) -> None:
        self._reader, self._info, self._run = reader, info, run

    def read(
        self,
        ids: Ids,
        token_ids: Sequence[int] | Ids,
        positions: Sequence[int] | None,
        tuned: TunedLens | None,
    ) -> WordReadout:
        """As `moetui.model.Model.read_words`, for checked ids."""
        words = np.asarray(token_ids, np.int32).reshape(-1)
        rows = np.arange(len(ids), dtype=np.int32)
        if positions is not None:
            if not all(-len(ids) <= p < len(ids) for p in positions):
                raise UsageError(f"positions {list(positions)} of {len(ids)} tokens", "from 0")
            rows = rows[list(positions)]
        if len(words) and not 0 <= words.min() <= words.max() < self._info.vocab_size:
            raise UsageError("a word that is no token of this model", "see `Model.token_id`")
        if tuned is not None and tuned.digest != self._info.digest:
            raise UsageError("that tuned lens was fitted to another model", "fit one to this")
        return self._read(self._run(ids)[mx.array(rows)], words, rows, tuned)

    def fit(
        self, documents: Sequence[Ids], held_out: Sequence[Ids], *, seed: int, recipe: Recipe | None
    ) -> TunedLens:
        """As `moetui.model.Model.fit_tuned_lens`, for checked ids."""
        if len(documents) < _FEWEST or len(held_out) < _FEWEST:
            raise UsageError(
                f"{len(documents)} documents to fit a lens to and {len(held_out)} held out",
                f"give at least {_FEWEST} of each",
            )
        return fit(
            self._reader,
            self._states(documents),
            self._states(held_out),
            digest=self._info.digest,
            seed=seed,
            recipe=recipe,
        )

    def _read(
        self, hidden: mx.array, words: Ids, rows: Ids, tuned: TunedLens | None
    ) -> WordReadout:
        read = hidden if tuned is None else translate(hidden, tuned)
        P, N, H = read.shape
        step = self._reader.chunk(P, N, self._info.vocab_size)
        found = [
            self._chunk(read[start : start + step], hidden[start : start + step, -1], words)
            for start in range(0, P, step)
        ]
        logprobs, ranks, kl = (np.concatenate(part) for part in zip(*found, strict=True))
        return WordReadout(positions=rows, token_ids=words, logprobs=logprobs, ranks=ranks, kl=kl)

    def _chunk(self, read: mx.array, last: mx.array, words: Ids) -> tuple[Any, Any, Any]:
        P, N, H = read.shape
        logits = self._reader.logits(read.reshape(P * N, H))
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        own = mx.repeat(self._reader.logits(last), N, axis=0)
        kl = divergence(own, logits)
        mx.eval(logprobs, kl)
        table = np.array(logprobs)
        of_words = table[:, words]
        ranks = _ranks(table, of_words)
        shape = (P, N, len(words))
        return of_words.reshape(shape), ranks.reshape(shape), np.array(kl).reshape(P, N)

    def _states(self, documents: Sequence[Ids]) -> States:
        """Every position of the documents, as many as fit into `FIT_BYTES`."""
        room = FIT_BYTES // (4 * self._info.num_layers * self._info.hidden_size)
        parts: list[NDArray[np.float32]] = []
        used = 0
        for ids in documents:
            hidden = self._run(ids[: max(room - used, 0)]) if used < room else None
            if hidden is None:
                break
            hidden = hidden.astype(mx.float32)
            mx.eval(hidden)
            parts.append(np.array(hidden))
            used += len(parts[-1])
        return States(np.concatenate(parts), len(parts))


def _ranks(table: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.int32]:
    """int32 [R, W]: how many of each row of the table are above each of its values."""
    ordered = np.sort(table, axis=-1) if values.size else table
    above = [
        len(row) - np.searchsorted(row, of_row, side="right")
        for row, of_row in zip(ordered, values, strict=True)
    ]
    return np.array(above, np.int32).reshape(values.shape)
