"""Documents as routed by hand, for studies that start from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from moetui.analyses.routed import RoutedDocument
from tests.fake_forward import FakeForward


def routed_by_hand(
    experts: Any,
    *,
    ids: Any = None,
    weights: Any = None,
    norms: Any = None,
    domain: str = "prose",
    nll: Any = None,
) -> RoutedDocument:
    """A document with experts [T, L, k]; equal weights, and no outputs unless given."""
    chosen = np.asarray(experts, np.int16)
    T, _, k = chosen.shape
    return RoutedDocument(
        id="by hand",
        domain=domain,
        ids=np.arange(T, dtype=np.int32) if ids is None else np.asarray(ids, np.int32),
        experts=chosen,
        weights=np.full(chosen.shape, 1 / k, np.float32)
        if weights is None
        else np.asarray(weights, np.float32),
        nll=np.zeros(T - 1, np.float32) if nll is None else np.asarray(nll, np.float32),
        output_norms=None if norms is None else np.asarray(norms, np.float32),
        mixture_norms=None,
        top_cosines=None,
    )


def routed_by(model: FakeForward, ids: Any, domain: str = "prose") -> RoutedDocument:
    """A document of these token ids, as the fake routes it."""
    trace = model.trace(ids, lens=0)
    return routed_by_hand(
        trace.expert_ids,
        ids=ids,
        weights=trace.expert_weights,
        domain=domain,
        nll=model.nll(ids),
    )
