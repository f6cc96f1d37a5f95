"""A mean over units that were measured on the same documents, and how far it can be trusted.

Units that share documents are not independent: what is peculiar to a document moves all of them at
once, which the spread between units does not show. Leaving documents out of all units together
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

# Groups that documents are dealt into; each is left out once.
GROUPS = 20


@dataclass(frozen=True, eq=False, kw_only=True)
class DocumentGroups:
    """Documents dealt into groups of equal size. of: group by document; size: how many groups."""

    of: dict[str, int]
    size: int


def document_groups(documents: Sequence[str], *, seed: int) -> DocumentGroups:
    """The documents, each taken once, dealt at random into at most `GROUPS` groups."""
    each = sorted(set(documents))
    dealt = np.random.default_rng(seed).permutation(len(each))
    size = min(GROUPS, len(each))
    return DocumentGroups(
        of={document: int(place) % size for document, place in zip(each, dealt, strict=True)},
        size=size,
    )


def shared_mean(values: Numbers, without: Numbers) -> tuple[float, float, int]:
    """Mean, standard error and degrees of freedom of n units, values [n]; without [n, G]: what
    each unit is where the documents of one group are left out of all of them.

    The variance between units, plus what they share through documents: that of the mean by
    delete-a-group jackknife, less what each unit alone contributes to it (two-way clustering,
    Cameron, Gelbach and Miller, J. Business & Economic Statistics 29, 2011). Raises ValueError
    below two units or groups, or for numbers that are not finite.
    """
    n, G = without.shape
    if n < 2 or G < 2 or len(values) != n:
        raise ValueError("two units or more, each without each of two groups or more")
    if not np.isfinite(values).all() or not np.isfinite(without).all():
        raise ValueError("a mean over units needs numbers that are finite")
    between = float(values.var(ddof=1)) / n
    together = _jackknife(without.mean(axis=0))
    apart = float(np.sum(_jackknife(without))) / n**2
    variance = between + max(0.0, float(together) - apart)
    return float(values.mean()), float(np.sqrt(variance)), min(n, G) - 1


def _jackknife(without: Numbers) -> Numbers:
    """Variance [...] of what was left out group by group, [..., G]."""
    G = without.shape[-1]
    return np.asarray((G - 1) * without.var(axis=-1), float)
