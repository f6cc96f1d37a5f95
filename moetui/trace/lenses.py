"""What the lens says of chosen tokens, raw or through translators fitted to the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.trace.types import Floats, Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class TunedLens:
    """A translator for every layer: h becomes h + (h · down) · up + bias before norm and head.

    With it a layer is read in the terms of the last one (tuned lens, arXiv 2303.08112; there the
    map is of full rank). The last layer's is the identity, and so is that of every layer for
    which training found nothing better.

    digest: of the model that it was fitted to.
    down: float32 [N, H, r], up: float32 [N, r, H], bias: float32 [N, H].
    steps: int32 [N], training steps after which each layer's translator was kept, 0 for identity.
    kl_raw, kl_tuned: float64 [N], mean KL(model ‖ layer) in nats on held-out calibration tokens.
    fit_documents, fit_tokens, held_out_documents, held_out_tokens: sizes.
    """

    digest: str
    down: Floats
    up: Floats
    bias: Floats
    steps: Ints
    kl_raw: NDArray[np.float64]
    kl_tuned: NDArray[np.float64]
    fit_documents: int
    fit_tokens: int
    held_out_documents: int
    held_out_tokens: int
    seed: int

    @property
    def rank(self) -> int:
        """r, the largest rank of what is added to the identity."""
        return int(self.down.shape[-1])


@dataclass(frozen=True, eq=False, kw_only=True)
class WordReadout:
    """The lens at P rows of a text, for W chosen tokens, after each of M layers.

    layers: int32 [M]. token_ids: int32 [W].
    logprobs: float32 [P, M, W], natural log of their probabilities over the whole vocabulary.
    ranks: int32 [P, M, W], how many tokens are more probable, 0 = top; None where not asked for.
    kl: float32 [P, M], KL(model ‖ layer) in nats of the next-token distributions, 0 at the last
        layer; None where not asked for.
    """

    layers: Ints
    token_ids: Ints
    logprobs: Floats
    ranks: Ints | None
    kl: Floats | None
