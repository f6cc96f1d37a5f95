"""A linear map from a residual stream to probabilities of tasks, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.one_thread import one_thread
from moetui.analyses.probe_fit import fitted

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearRoute:
    """softmax(W h + b): tasks, sorted, K of them; weights float64 [K, H], bias float64 [K]."""

    tasks: tuple[str, ...]
    weights: Numbers
    bias: Numbers

    def probabilities(self, hidden: NDArray[np.floating]) -> Numbers:
        """float64 [..., K] for hidden [..., H]; every row sums to 1."""
        logits = np.asarray(hidden, float) @ self.weights.T + self.bias
        grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares: Numbers = grown / grown.sum(axis=-1, keepdims=True)
        return shares


def fit_route(hidden: NDArray[np.floating], tasks: Sequence[str]) -> tuple[LinearRoute, bool]:
    """The route that logistic regression on standardised features gives, and whether its training
    converged. hidden: [n, H]; tasks: [n], at least two different ones."""
    names, labels = np.unique(np.array(tasks), return_inverse=True)
    with one_thread():
        probe, converged = fitted(np.asarray(hidden, float), labels)
    scaler, regression = probe[0], probe[-1]
    weights, bias = regression.coef_ / scaler.scale_, regression.intercept_
    bias = bias - weights @ scaler.mean_
    if len(names) == 2:
        # Of two classes only the second has a row: its log-odds against the first.
        weights = np.concatenate([np.zeros_like(weights), weights])
        bias = np.concatenate([np.zeros_like(bias), bias])
    route = LinearRoute(tuple(str(name) for name in names), weights, bias)
    return route, converged
