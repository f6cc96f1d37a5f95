"""How well a model predicts a text, and how far an intervention moves its predictions.

Logits stay in the graph: a long text runs in several passes through one cache, and of each pass
only one number per token comes out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
# Reads ids [T] into a cache and answers with logits [1, T, V], not evaluated.
Pass = Callable[[Ids, Any], mx.array]

# Tokens of one pass: as mlx-lm's own prefill, and fewer where the vocabulary is large, so that
# the logits of a pass [T, V] and their copies stay below about a gigabyte.
_TOKENS_AT_ONCE = 2048
_LOGITS_AT_ONCE = 1 << 26
# Where P' raises a logit so far above P's, exp overflows, and no logarithm cancels any more.
_FAR = 60.0


def nll(ids: Ids, vocabulary: int, cache: list[Any], run: Pass) -> Floats:
    """float32 [T - 1]: -ln P(token t | tokens before it) in nats, for t = 1 … T - 1."""
    read, targets = ids[:-1], ids[1:]
    parts = []
    for rows in _passes(len(read), vocabulary):
        logprobs = _logprobs(run(read[rows], cache))
        own = mx.take_along_axis(logprobs, mx.array(targets[rows])[:, None], axis=-1)
        parts.append(_evaluated(-own.squeeze(-1), cache))
    return np.concatenate([np.empty(0, np.float32), *parts])


def next_logits(ids: Ids, cache: list[Any], run: Pass, step: int) -> Floats:
    """float32 [V]: logits after the last token, read in passes of `step` tokens."""
    for start in range(0, len(ids), step):
        logits = run(ids[start : start + step], cache)
        mx.eval(logits, [c.state for c in cache])
    return np.array(logits[0, -1].astype(mx.float32))


def kl(
    ids: Ids, vocabulary: int, caches: tuple[list[Any], list[Any]], runs: tuple[Pass, Pass]
) -> Floats:
    """float32 [T]: Σ_v P(v) ln(P(v) / P'(v)) in nats after every token, P of the first run and P'
    of the second."""
    parts = []
    for rows in _passes(len(ids), vocabulary):
        z, changed = (
            run(ids[rows], cache)[0].astype(mx.float32)
            for run, cache in zip(runs, caches, strict=True)
        )
        parts.append(_evaluated(divergence(z, changed), [*caches[0], *caches[1]]))
    return np.concatenate(parts)


def divergence(z: mx.array, changed: mx.array) -> mx.array:
    """float32 [T]: KL of the softmaxes of logits [T, V], exact for small differences too.

    With d = z' - z less its mean Σ P (z' - z), KL = ln Σ P exp(d) = ln(1 + Σ P (exp(d) - 1 - d)):
    the normalisers, large and equal but for rounding, do not occur. Equal logits give 0.
    """
    normaliser = mx.logsumexp(z, axis=-1, keepdims=True)
    p = mx.exp(z - normaliser)
    d = changed - z
    d = mx.where(mx.isnan(d), 0, d)  # both rule the token out
    mean = _expectation(p, d)
    d = d - mean
    d = d - _expectation(p, d)  # what rounding left of the mean
    near = mx.log1p(_expectation(p, _exp_beyond_linear(mx.minimum(d, _FAR))))
    far = mx.logsumexp(changed, axis=-1, keepdims=True) - normaliser - mean
    return mx.where(d.max(-1, keepdims=True) > _FAR, far, near).squeeze(-1)


def _exp_beyond_linear(d: mx.array) -> mx.array:
    """exp(d) - 1 - d, which is never negative; where it is small, by its series."""
    series = d * d * (1 / 2 + d * (1 / 6 + d * (1 / 24 + d / 120)))
    return mx.where(mx.abs(d) < 0.1, series, mx.expm1(d) - d)


def _expectation(p: mx.array, values: mx.array) -> mx.array:
    """[T, 1]; what P rules out counts nothing, whatever its value."""
    return mx.where(p == 0, 0, p * values).sum(-1, keepdims=True) / p.sum(-1, keepdims=True)


def _passes(tokens: int, vocabulary: int) -> Iterator[slice]:
    step = max(1, min(_TOKENS_AT_ONCE, _LOGITS_AT_ONCE // vocabulary))
    return (slice(start, min(start + step, tokens)) for start in range(0, tokens, step))


def _logprobs(logits: mx.array) -> mx.array:
    """float32 [T, V]"""
    z = logits[0].astype(mx.float32)
    return z - mx.logsumexp(z, axis=-1, keepdims=True)


def _evaluated(values: mx.array, cache: list[Any]) -> Floats:
    mx.eval(values, [entry.state for entry in cache])
    return np.array(values, np.float32)
