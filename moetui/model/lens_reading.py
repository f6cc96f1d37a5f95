"""The part of a model that reads its lens: later positions, chosen words, translators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

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
Floats = NDArray[np.float32]

_TYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16}

# Of the residual streams that a tuned lens is fitted to, which are held in memory.
FIT_BYTES = 1 << 29
_FEWEST = 2  # documents on either side of a fit


class LensReading(ABC):
    """What `moetui.model.Model` says through its lens; how it runs is the model's own affair."""

    info: ModelInfo
    lens_reader: Lens
    texts: TokenTexts
    before_pass: Callable[[], None]

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
        streams: Floats,
        token_ids: Sequence[int] | Ids,
        *,
        layers: Sequence[int] | None = None,
        tuned: TunedLens | None = None,
        in_full: bool = False,
    ) -> WordReadout:
        """What the lens gives to `token_ids` for streams [P, N, H] as they leave every layer
        (rows of `Trace.streams.leaving`), after `layers` (default: all).

        tuned: read through its translators, which were fitted to this model. in_full: ranks and
        KL as well. Raises UsageError for what does not fit, ModelError where this architecture
        has no lens.
        """
        self._check_lens()
        words = np.asarray(token_ids, np.int32).reshape(-1)
        if len(words) and not 0 <= words.min() <= words.max() < self.info.vocab_size:
            raise UsageError("a word that is no token of this model", "take ids from `token_id`")
        shape = (self.info.num_layers, self.info.hidden_size)
        if streams.shape[1:] != shape:
            raise UsageError(f"streams of shape {streams.shape}", f"give [rows, {shape}]")
        if tuned is not None and tuned.digest != self.info.digest:
            raise UsageError("that tuned lens was fitted to another model", "fit one to this")
        chosen = list(range(shape[0]) if layers is None else layers)
        # Back to the type in which they came: norm and head then compute what the model does.
        hidden = mx.array(streams).astype(_TYPES.get(self.info.dtype, mx.float32))
        return self._read_words(hidden, words, chosen, tuned, in_full)

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
        look = self.before_pass
        return fit(self.lens_reader, *sides, digest=digest, seed=seed, recipe=recipe, look=look)

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
        self, hidden: mx.array, words: Ids, layers: list[int], tuned: TunedLens | None, full: bool
    ) -> WordReadout:
        from moetui.model.tuned_lens import translate

        read = hidden if tuned is None else translate(hidden, tuned)
        read = read[:, mx.array(layers)]
        step = self.lens_reader.chunk(len(read), len(layers), self.info.vocab_size)
        logprobs, ranks, kl = [], [], []
        for start in range(0, len(read), step):
            rows = slice(start, start + step)
            table = self._logprobs(read[rows])
            of_words = table[..., mx.array(words)] if len(words) else table[..., :0]
            mx.eval(of_words)
            logprobs.append(np.array(of_words))
            if full:
                ranks.append(_ranks(np.array(table), logprobs[-1]))
                own = self._logprobs(hidden[rows, -1:])
                kl.append(np.array(_divergence(own, table)))
        return WordReadout(
            layers=np.array(layers, np.int32),
            token_ids=words,
            logprobs=np.concatenate(logprobs),
            ranks=np.concatenate(ranks) if full else None,
            kl=np.concatenate(kl) if full else None,
        )

    def _logprobs(self, hidden: mx.array) -> mx.array:
        """[P, M, V] of hidden [P, M, H]"""
        P, M, H = hidden.shape
        logits = self.lens_reader.logits(hidden.reshape(P * M, H))
        return (logits - mx.logsumexp(logits, axis=-1, keepdims=True)).reshape(P, M, -1)

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


def _divergence(own: mx.array, table: mx.array) -> mx.array:
    """[P, M]: KL of own [P, 1, V] and each layer of table [P, M, V]."""
    P, M, V = table.shape
    repeated = mx.broadcast_to(own, table.shape).reshape(P * M, V)
    return divergence(repeated, table.reshape(P * M, V)).reshape(P, M)


def _ranks(table: Floats, values: Floats) -> NDArray[np.int32]:
    """int32 [P, M, W]: how many of table [P, M, V] are above each of values [P, M, W]."""
    rows = np.sort(table, axis=-1).reshape(-1, table.shape[-1])
    of_rows = values.reshape(len(rows), -1)
    above = [
        len(row) - np.searchsorted(row, of_row, side="right")
        for row, of_row in zip(rows, of_rows, strict=True)
    ]
    return np.array(above, np.int32).reshape(values.shape)
