"""The part of a model that reads its lens: later positions, chosen words, translators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.errors import ModelError, UsageError
from moetui.model.lens import Lens, readout
from moetui.model.likelihood import divergence
from moetui.model.text import TokenTexts
from moetui.trace import Intervention, LensReadout, ModelInfo, Trace, TunedLens, WordReadout

if TYPE_CHECKING:
    from moetui.model.tuned_lens import Recipe, States

Ids = NDArray[np.int32]

# Of the residual streams that a tuned lens is fitted to, which are held in memory.
FIT_BYTES = 1 << 29
_FEWEST = 2  # documents on either side of a fit


class LensReading(ABC):
    """What `moetui.model.Model` says through its lens; how it runs is the model's own affair."""

    info: ModelInfo
    lens_reader: Lens
    texts: TokenTexts

    @abstractmethod
    def ids(self, text_or_ids: str | Sequence[int] | Ids) -> Ids:
        """Token ids of a prompt, checked."""

    @abstractmethod
    def states(self, ids: Ids, rows: Ids, interventions: Sequence[Intervention] = ()) -> mx.array:
        """[P, N, H]: the residual stream after every layer at `rows` of a new pass over `ids`,
        not evaluated."""

    def lens(
        self,
        trace: Trace,
        positions: int | Iterable[int],
        n: int = 5,
        *,
        interventions: Sequence[Intervention] = (),
    ) -> LensReadout:
        """Read the lens at `positions` of a trace whose default left them out (one new forward).

        interventions: those that the trace was made with.

        Raises UsageError when a position is not a row of the trace.
        """
        self._check_lens()
        asked = [positions] if isinstance(positions, int) else list(positions)
        rows = _rows(asked, len(trace), f"of a trace of {len(trace)} rows")
        return self.read_lens(self.states(trace.token_ids, rows, interventions), rows, n)

    def token_id(self, text: str) -> int | None:
        """The token that reads exactly as `text`, None where no single one does."""
        return self.texts.token_id(text, self.info.vocab_size)

    def read_words(
        self,
        text_or_ids: str | Sequence[int] | Ids,
        token_ids: Sequence[int] | Ids,
        *,
        positions: Sequence[int] | None = None,
        tuned: TunedLens | None = None,
    ) -> WordReadout:
        """What the lens gives to `token_ids` after every layer, at `positions` (default: all).

        tuned: read through its translators, which were fitted to this model. Raises UsageError
        for what does not fit, ModelError where this architecture has no lens.
        """
        self._check_lens()
        ids, words = self.ids(text_or_ids), np.asarray(token_ids, np.int32).reshape(-1)
        asked = range(len(ids)) if positions is None else positions
        rows = _rows(list(asked), len(ids), f"of {len(ids)} tokens")
        if len(words) and not 0 <= words.min() <= words.max() < self.info.vocab_size:
            raise UsageError("a word that is no token of this model", "take ids from `token_id`")
        if tuned is not None and tuned.digest != self.info.digest:
            raise UsageError("that tuned lens was fitted to another model", "fit one to this")
        return self._read_words(self.states(ids, rows), words, rows, tuned)

    def fit_tuned_lens(
        self,
        documents: Sequence[str | Sequence[int] | Ids],
        held_out: Sequence[str | Sequence[int] | Ids],
        *,
        seed: int,
        recipe: Recipe | None = None,
    ) -> TunedLens:
        """Translators fitted to `documents`, each stopped by what helps on `held_out`.

        Deterministic on one machine. Raises UsageError for fewer than two documents on either
        side, ModelError where this architecture has no lens.
        """
        from moetui.model.tuned_lens import fit

        self._check_lens()
        if len(documents) < _FEWEST or len(held_out) < _FEWEST:
            raise UsageError(
                f"{len(documents)} documents to fit a lens to and {len(held_out)} held out",
                f"give at least {_FEWEST} of each",
            )
        sides = self._fit_states(documents), self._fit_states(held_out)
        digest = self.info.digest
        return fit(self.lens_reader, *sides, digest=digest, seed=seed, recipe=recipe)

    def read_lens(self, hidden: mx.array, positions: Ids, n: int) -> LensReadout:
        """The top n tokens of hidden [P, N, H], a few positions at a time."""
        self._check_lens()
        P, N, _ = hidden.shape
        step = self.lens_reader.chunk(P, N, self.info.vocab_size)
        parts = []
        for start in range(0, P, step):
            part = self.lens_reader.read(hidden[start : start + step], n)
            mx.eval(*part.arrays())
            parts.append(part)
        return readout(parts, layers=N, positions=positions, token_text=self.texts.text)

    def _check_lens(self) -> None:
        if self.info.lens_error is not None:
            raise ModelError(self.info.lens_error, "the routing readings are not affected")

    def _read_words(
        self, hidden: mx.array, words: Ids, rows: Ids, tuned: TunedLens | None
    ) -> WordReadout:
        from moetui.model.tuned_lens import translate

        P, N, _ = hidden.shape
        step = self.lens_reader.chunk(P, N, self.info.vocab_size)
        read = hidden if tuned is None else translate(hidden, tuned)
        found = [
            self._chunk(read[start : start + step], hidden[start : start + step, -1], words)
            for start in range(0, P, step)
        ]
        logprobs, ranks, kl = (np.concatenate(part) for part in zip(*found, strict=True))
        return WordReadout(positions=rows, token_ids=words, logprobs=logprobs, ranks=ranks, kl=kl)

    def _chunk(self, read: mx.array, last: mx.array, words: Ids) -> tuple[Any, Any, Any]:
        P, N, H = read.shape
        logits = self.lens_reader.logits(read.reshape(P * N, H))
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        own = mx.repeat(self.lens_reader.logits(last), N, axis=0)
        kl = divergence(own, logits)
        mx.eval(logprobs, kl)
        table = np.array(logprobs)
        of_words = table[:, words]
        shape = (P, N, len(words))
        ranks = _ranks(table, of_words).reshape(shape)
        return of_words.reshape(shape), ranks, np.array(kl).reshape(P, N)

    def _fit_states(self, documents: Sequence[str | Sequence[int] | Ids]) -> States:
        """Every position of the documents, as many as fit into `FIT_BYTES`."""
        from moetui.model.tuned_lens import States

        room = max(1, FIT_BYTES // (4 * self.info.num_layers * self.info.hidden_size))
        parts: list[NDArray[np.float32]] = []
        for document in documents:
            left = room - sum(map(len, parts))
            if left <= 0:
                break
            ids = self.ids(document)[:left]
            hidden = self.states(ids, np.arange(len(ids), dtype=np.int32)).astype(mx.float32)
            parts.append(np.array(hidden))
        return States(np.concatenate(parts), len(parts))


def _rows(positions: Sequence[int], length: int, of: str) -> Ids:
    if not all(-length <= p < length for p in positions):
        raise UsageError(f"positions {list(positions)} {of}", "count from 0")
    return np.array([p % length for p in positions], np.int32)


def _ranks(table: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.int32]:
    """int32 [R, W]: how many of each row of the table are above each of its values."""
    ordered = np.sort(table, axis=-1) if values.size else table
    above = [
        len(row) - np.searchsorted(row, of_row, side="right")
        for row, of_row in zip(ordered, values, strict=True)
    ]
    return np.array(above, np.int32).reshape(values.shape)
