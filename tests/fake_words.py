"""A model whose lens reads what a function of the prompt says, for the words of a task."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.trace import Intervention, Prompt, Streams, Trace, TunedLens, WordReadout
from moetui.trace.types import Floats, Ints
from tests.builders import make_model_info, make_trace

Numbers = NDArray[np.float64]
# Every number, word or sign is a token, with the space before it if there is one.
_TOKEN = re.compile(r" ?(?:\d+|[A-Za-z]+|[^\sA-Za-z\d])| ")


class WordForward:
    """Implements what the analyses of words ask of `Forward`.

    vocabulary: text of every token; texts are split into these, unknown pieces are token 0.
    logits: prompt → [T, N, V], what the raw lens reads; tuned: the same through any tuned lens.
    weights: prompt → [T, L, E], mixing weights. The stream of a row is its number among all rows
    that were ever traced, so that `read_words` knows which one it is given.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        logits: Callable[[str], Numbers],
        *,
        tuned: Callable[[str], Numbers] | None = None,
        weights: Callable[[str], Numbers] | None = None,
        layers: int = 4,
        experts: int = 6,
        k: int = 2,
        moe_layers: Sequence[int] | None = None,
    ) -> None:
        self.vocabulary = list(vocabulary)
        self.info = make_model_info(
            num_layers=layers, num_experts=experts, top_k=k, moe_layers=moe_layers,
            hidden_size=1, vocab_size=len(vocabulary),
        )  # fmt: skip
        self._logits, self._tuned, self._weights = logits, tuned or logits, weights
        self._rows: list[tuple[str, int]] = []
        self.fitted: list[tuple[list[list[int]], list[list[int]]]] = []

    def token_text(self, token_id: int) -> str:
        return self.vocabulary[token_id]

    def token_id(self, text: str) -> int | None:
        known = text in self.vocabulary and not text.startswith("<")
        return self.vocabulary.index(text) if known else None

    def tokenize(self, text: str) -> Ints:
        found = [self.token_id(piece) or 0 for piece in _TOKEN.findall(text)]
        return np.array(found, np.int32)

    def trace(
        self,
        text_or_ids: Prompt,
        *,
        lens: int = 5,
        residuals: bool = True,
        streams: bool = False,
        attention: bool = False,
        expert_outputs: bool = False,
        sources: Sequence[int] = (),
        interventions: Sequence[Intervention] = (),
    ) -> Trace:
        text = text_or_ids if isinstance(text_or_ids, str) else str(list(text_or_ids))
        T = len(self.tokenize(text)) if isinstance(text_or_ids, str) else len(text_or_ids)
        first = len(self._rows)
        self._rows += [(text, row) for row in range(T)]
        info, L = self.info, len(self.info.moe_layers)
        whole = make_trace(
            T, info.num_layers, info.num_experts, info.top_k, with_parts=False, with_lens=False,
            moe_layers=info.moe_layers,
        )  # fmt: skip
        numbers = np.arange(first, first + T, dtype=np.float32)[:, None, None]
        stream = np.broadcast_to(numbers, (T, info.num_layers, 1)).copy()
        changes: dict[str, Any] = {
            "model": info,
            "streams": Streams(
                entering=stream, at_router=stream, leaving=stream, router_input=stream[:, :L]
            ),
        }
        if self._weights is not None:
            given = self._weights(text)
            ids = np.argsort(-given, axis=-1, kind="stable")[..., : info.top_k]
            changes["expert_ids"] = ids.astype(np.int16)
            changes["expert_weights"] = np.take_along_axis(given, ids, -1).astype(np.float32)
        return replace(whole, **changes)

    def read_words(
        self,
        streams: Floats,
        token_ids: Sequence[int] | Ints,
        *,
        layers: Sequence[int] | None = None,
        tuned: TunedLens | None = None,
        in_full: bool = False,
    ) -> WordReadout:
        words = np.asarray(token_ids, np.int32)
        chosen = list(range(self.info.num_layers) if layers is None else layers)
        of = self._logits if tuned is None else self._tuned
        rows = [self._rows[int(number)] for number in streams[:, 0, 0]]
        z = np.stack([of(text)[row] for text, row in rows])
        table = z - np.log(np.exp(z).sum(-1, keepdims=True))
        own = np.stack([self._logits(text)[row, -1] for text, row in rows])[:, None]
        own = own - np.log(np.exp(own).sum(-1, keepdims=True))
        of_words = table[:, chosen][..., words]
        ranks = (table[:, chosen][..., None] > of_words[:, :, None]).sum(2)
        kl = (np.exp(own) * (own - table)).sum(-1)[:, chosen]
        return WordReadout(
            layers=np.array(chosen, np.int32),
            token_ids=words,
            logprobs=of_words.astype(np.float32),
            ranks=ranks.astype(np.int32) if in_full else None,
            kl=kl.astype(np.float32) if in_full else None,
        )

    def fit_tuned_lens(
        self, documents: Sequence[Prompt], held_out: Sequence[Prompt], *, seed: int
    ) -> TunedLens:
        sides = [[[int(i) for i in one] for one in side] for side in (documents, held_out)]
        self.fitted.append((sides[0], sides[1]))
        N = self.info.num_layers
        return TunedLens(
            digest=self.info.digest,
            down=np.zeros((N, 1, 1), np.float32),
            up=np.zeros((N, 1, 1), np.float32),
            bias=np.zeros((N, 1), np.float32),
            steps=np.zeros(N, np.int32),
            kl_raw=np.ones(N),
            kl_tuned=np.ones(N) / 2,
            fit_documents=len(documents),
            fit_tokens=sum(map(len, sides[0])),
            held_out_documents=len(held_out),
            held_out_tokens=sum(map(len, sides[1])),
            seed=seed,
        )
