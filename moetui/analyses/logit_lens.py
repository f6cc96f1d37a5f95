"""What the model would say if it stopped after each layer (logit lens) at one token."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from moetui.trace import Trace


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """A next token and its probability under the softmax over the whole vocabulary."""

    token_id: int
    text: str
    probability: float


class LensView(msgspec.Struct, frozen=True, kw_only=True):
    """The lens at one row of a trace.

    layers: [N] decoder layers; the last one is the model's own output.
    top: [N][n], the most probable next tokens, best first.
    answer: the model's own most probable next token; answer_rank [N] (0 = top) and
        answer_probability [N] follow it through the layers.
    settled: the first layer from which the answer is on top to the end. The last layer is there
        by definition, so `settled` there says that no earlier layer knew.
    vocabulary: V; a token picked at random has a probability of about 1/V and a rank of about V/2.
        That is no model with random weights: neighbouring layers share most of the stream, so
        there too the answer climbs, and may be on top some layers before the last.
    """

    layers: list[int]
    top: list[list[Guess]]
    answer: Guess
    answer_rank: list[int]
    answer_probability: list[float]
    settled: int
    vocabulary: int


def logit_lens(trace: Trace, index: int) -> LensView | None:
    """The lens at row `index` of `trace`; None where it was not read."""
    lens = trace.lens
    at = lens.at(index) if lens is not None else None
    if lens is None or at is None:
        return None
    rank = lens.answer_rank[at]
    layers = lens.layers.tolist()
    answer_probability = np.exp(lens.answer_logprob[at].astype(float)).tolist()
    return LensView(
        layers=layers,
        top=[
            [_guess(lens.text, int(i), float(p)) for i, p in zip(ids, logprobs, strict=True)]
            for ids, logprobs in zip(lens.token_ids[at], lens.logprobs[at], strict=True)
        ],
        answer=Guess(
            token_id=int(lens.answer_ids[at]),
            text=lens.text[int(lens.answer_ids[at])],
            probability=answer_probability[-1],
        ),
        answer_rank=rank.tolist(),
        answer_probability=answer_probability,
        settled=layers[_settled(rank)],
        vocabulary=trace.model.vocab_size,
    )


def _guess(text: Mapping[int, str], token_id: int, logprob: float) -> Guess:
    return Guess(token_id=token_id, text=text[token_id], probability=float(np.exp(logprob)))


def _settled(rank: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> int:
    """Index of the first layer from which all ranks are 0 (the last one if none earlier is)."""
    wrong = np.flatnonzero(rank != 0)
    return min(int(wrong[-1]) + 1, len(rank) - 1) if len(wrong) else 0
