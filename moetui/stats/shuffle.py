"""Nulls that shuffle the rows of a routing table: within documents, or among equal tokens.

Routing that is shuffled within its document keeps what the document as a whole prefers; shuffled
among the rows of one token id it keeps all that token identity explains, a stronger null.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rows = NDArray[np.intp]


def within_document_shuffle(document_ids: ArrayLike, rng: np.random.Generator) -> Rows:
    """int [T], a random order of T rows in which every row stays in its document.

    document_ids: [T]. ``ids[within_document_shuffle(documents, rng)]`` is one draw of the null.
    """
    return _within(document_ids, rng)


def token_stratified_shuffle(token_ids: ArrayLike, rng: np.random.Generator) -> Rows:
    """int [T], a random order of T rows in which every row goes to a row of the same token id.

    token_ids: [T]. Rows of a token that occurs once stay where they are (`movable_share`).
    """
    return _within(token_ids, rng)


def movable_rows(groups: ArrayLike) -> NDArray[np.bool_]:
    """bool [T]: rows whose group (document or token id) has another row to change with."""
    _, group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return np.asarray(sizes[group] > 1)


def movable_share(groups: ArrayLike) -> float:
    """The share of rows that are `movable_rows`; 0 of none."""
    rows = movable_rows(groups)
    return float(rows.mean()) if len(rows) else 0.0


def _within(groups: ArrayLike, rng: np.random.Generator) -> Rows:
    group = np.asarray(groups)
    if group.ndim != 1:
        raise ValueError("one group for each row")
    places = np.argsort(group, kind="stable")
    order = np.empty(len(group), np.intp)
    order[places] = np.lexsort((rng.random(len(group)), group))
    return order
