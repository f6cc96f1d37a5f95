"""Do the experts of a token work together, past one another, or against one another?

A mixture Σ g f of k outputs is as long as its parts point the same way. With I = ‖Σ g f‖² / Σ‖g f‖²
outputs at right angles give 1, outputs that cancel less, and equal ones the most there can be,
(Σ‖g f‖)² / Σ‖g f‖². Whether training made that is told by other experts in their place: the same
weights, the same inputs, and the experts of the layer dealt out anew so that nobody keeps its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.routed import RoutedDocument
from moetui.stats import Intervals, Statistic, document_intervals, joined, permutation_p
from moetui.trace.types import ExpertIds, Floats

Numbers = NDArray[np.float64]
Targets = NDArray[np.int64]

DEFINITION = (
    "I = ‖Σ g f‖² / Σ‖g f‖², mean over tokens: 1 where the outputs of a token's experts are at "
    "right angles, below where they cancel, at most (Σ‖g f‖)² / Σ‖g f‖². Null: the experts of the "
    "layer dealt out anew, none in its own place, with the same weights and inputs"
)
# Numbers held at once while experts are dealt out.
_AT_ONCE = 1 << 21
# What is estimated of a layer, in the order of the first axis.
_INDEX, _GREATEST, _SHARE, _COSINE, _AT_RIGHT_ANGLES, _EXCESS = range(6)


@dataclass(frozen=True, eq=False, kw_only=True)
class OutputSums:
    """Sums over the tokens of a document whose experts put out anything. L layers that route, R
    of them asked about other experts, J draws.

    tokens: [L]. index, greatest: [L], Σ I and the Σ of its maximum. cosine: [L], Σ of the cosine
    of the first expert's output with the mixture; at_right_angles: [L], the same if the outputs
    were as long as they are and at right angles. substituted: [2, R, J], Σ I with other experts,
    and Σ of its maximum, which their lengths give.
    """

    document: str
    tokens: Numbers
    index: Numbers
    greatest: Numbers
    cosine: Numbers
    at_right_angles: Numbers
    substituted: Numbers


class LayerInterference(msgspec.Struct, frozen=True, kw_only=True):
    """One layer, or (layer None) the mean over the layers where experts were dealt out anew.

    index: I, its null and p (two-sided) those of other experts where they were asked. greatest:
    the most that I could be with outputs of these lengths. share: (I − 1) / (greatest − 1), the
    cosine of two contributions to a mixture, averaged with their lengths, which are out of the
    comparison with other experts there: its null and p are theirs too. excess: I less its mean
    with other experts, paired token by token; None where they were not asked. top_cosine: of the
    first expert's output with the mixture; top_cosine_at_right_angles: what it would be if the
    outputs were at right angles.
    """

    layer: int | None
    index: Statistic
    greatest: Statistic
    share: Statistic
    excess: Statistic | None
    top_cosine: Statistic
    top_cosine_at_right_angles: Statistic


class ExpertInterference(msgspec.Struct, frozen=True, kw_only=True, tag="expert_interference"):
    """Over `tokens` tokens of `documents` documents.

    layers: all that route. substituted_layers: where experts were dealt out anew, `substitutions`
    times; `mean` is over these. not_substituted: why that was impossible, None where it was done.
    """

    definition: str
    documents: int
    tokens: int
    layers: tuple[LayerInterference, ...]
    mean: LayerInterference
    substituted_layers: tuple[int, ...]
    substitutions: int
    not_substituted: str | None


def interference_index(
    weights: Floats, norms: Floats, mixture: Floats
) -> tuple[Numbers, Numbers, Numbers]:
    """I, its maximum, and the part of the first expert, all [T, L]; NaN where nothing is put out.

    weights, norms: [T, L, k], of outputs before weighting; mixture: [T, L], ‖Σ g f‖. The part of
    the first is ‖g f‖ / √Σ‖g f‖², its cosine with the mixture if all are at right angles.
    """
    lengths = np.abs(np.nan_to_num(weights).astype(float)) * np.nan_to_num(norms)
    squares = (lengths**2).sum(axis=-1)
    whole = np.where(squares > 0, squares, np.nan)
    index = np.asarray(mixture, float) ** 2 / whole
    greatest = lengths.sum(axis=-1) ** 2 / whole
    first: Numbers = lengths[..., 0] / np.sqrt(whole)
    return index, greatest, first


def derangements(experts: int, draws: int, rng: np.random.Generator) -> Targets:
    """[draws, experts]: permutations in which no expert keeps its place, all equally likely.

    Raises ValueError for fewer than two experts, which have none.
    """
    if experts < 2:
        raise ValueError("two experts are the fewest that can be dealt out anew")
    found: list[Targets] = []
    places = np.arange(experts)
    while len(found) < draws:
        tried = rng.permuted(np.broadcast_to(places, (2 * draws + 8, experts)), axis=1)
        found += list(tried[(tried != places).all(axis=1)])
    return np.stack(found[:draws])


def substituted_index(
    every: Floats, experts: ExpertIds, weights: Floats, targets: Targets
) -> Numbers:
    """[2, J, T]: I of mixtures in which expert e's work is done by targets[j, e], and its maximum;
    NaN as above.

    every: [T, E, H], what each expert makes of each token. experts, weights: [T, k], −1 and NaN
    pad.
    """
    outputs = every.astype(np.float64)
    products = np.einsum("teh,tfh->tef", outputs, outputs, optimize=True)
    used = experts >= 0
    g = np.where(used, np.nan_to_num(weights), 0.0).astype(float)
    own = np.where(used, experts, 0).astype(np.int64)
    T, k = own.shape
    step = max(1, _AT_ONCE // max(1, T * k * k))
    rows = np.arange(T)[None, :, None, None]
    found = []
    for start in range(0, len(targets), step):
        chosen = targets[start : start + step][:, own]  # [j, T, k]
        pairs = products[rows, chosen[..., :, None], chosen[..., None, :]]
        whole = np.einsum("ti,jtik,tk->jt", g, pairs, g, optimize=True)
        squares = g**2 * np.einsum("jtii->jti", pairs)
        alone = squares.sum(axis=-1)
        longest = np.sqrt(np.maximum(squares, 0.0)).sum(axis=-1) ** 2
        found.append(np.stack([whole, longest]) / np.where(alone > 0, alone, np.nan))
    return np.concatenate(found, axis=1)


def output_sums(
    document: RoutedDocument, every: Sequence[Floats], at: Sequence[int], targets: Sequence[Targets]
) -> OutputSums:
    """What one document contributes.

    every: for each of R layers [T, E, H]; at: their places on the document's L axis; targets: for
    each [J, E]. Raises ValueError where the document's outputs were not read.
    """
    if document.output_norms is None or document.mixture_norms is None:
        raise ValueError("the model does not show what its experts put out")
    assert document.top_cosines is not None
    index, greatest, first = interference_index(
        document.weights, document.output_norms, document.mixture_norms
    )
    known = np.isfinite(index) & np.isfinite(document.top_cosines)
    substituted = [
        np.where(
            known[:, place],
            substituted_index(outputs, document.experts[:, place], document.weights[:, place], to),
            0.0,
        )
        for outputs, place, to in zip(every, at, targets, strict=True)
    ]
    draws = len(targets[0]) if targets else 0
    return OutputSums(
        document=document.id,
        tokens=known.sum(axis=0).astype(float),
        **{
            name: np.where(known, values, 0.0).sum(axis=0)
            for name, values in (
                ("index", index),
                ("greatest", greatest),
                ("cosine", document.top_cosines.astype(float)),
                ("at_right_angles", first),
            )
        },
        substituted=np.moveaxis(
            np.array([np.nan_to_num(one).sum(axis=-1) for one in substituted]).reshape(
                len(at), 2, draws
            ),
            1,
            0,
        ),
    )


def layer_targets(layer: int, experts: int, draws: int, *, seed: int) -> Targets:
    """The draws of one decoder layer: the same for every document."""
    rng = np.random.default_rng([seed, layer, zlib.crc32(b"substitution")])
    return derangements(experts, draws, rng)


def expert_interference(
    documents: Sequence[OutputSums],
    layers: Sequence[int],
    substituted: Sequence[int],
    *,
    not_substituted: str | None,
    seed: int,
) -> ExpertInterference:
    """What the sums of all documents say of the decoder layers `layers`, of which `substituted`
    were asked about other experts. Raises ValueError for no documents."""
    if not documents:
        raise ValueError("an interference index needs documents")
    found = _Sums(documents, [layers.index(layer) for layer in substituted])
    intervals = document_intervals(found.estimate, len(documents), seed=seed)
    rows = [_row(found, intervals, row, layer) for row, layer in enumerate((*layers, None))]
    return ExpertInterference(
        definition=DEFINITION,
        documents=len(documents),
        tokens=int(found.tokens.sum(axis=0).max(initial=0)),
        layers=tuple(rows[:-1]),
        mean=rows[-1],
        substituted_layers=tuple(substituted),
        substitutions=found.draws.shape[-1],
        not_substituted=not_substituted,
    )


class _Sums:
    """The sums of all documents; the last row of every estimate is the mean over the layers
    where experts were dealt out anew (all of them where that was nowhere)."""

    def __init__(self, documents: Sequence[OutputSums], at: Sequence[int]) -> None:
        self.tokens = np.stack([one.tokens for one in documents])  # [D, L]
        names = ("index", "greatest", "cosine", "at_right_angles")
        self._sums = np.stack(
            [np.stack([getattr(one, name) for one in documents]) for name in names], axis=1
        )  # [D, 4, L]
        other = np.stack([one.substituted for one in documents], axis=1)  # [2, D, R, J]
        self.at = list(at)
        self._over = self.at or [*range(self.tokens.shape[1])]
        self._other = np.full(self.tokens.shape, np.nan)
        if self.at:
            self._other[:, self.at] = other[0].mean(axis=-1)
        with np.errstate(invalid="ignore"):
            draws = other.sum(axis=1) / self.tokens.sum(axis=0)[self.at, None]  # [2, R, J]
            if self.at:
                draws = np.concatenate([draws, draws.mean(axis=1, keepdims=True)], axis=1)
            # Of I and of the share, by row.
            self.draws = np.stack([draws[0], (draws[0] - 1) / (draws[1] - 1)])

    def estimate(self, weights: Numbers) -> Numbers:
        """[6, L + 1, resamples]"""
        with np.errstate(invalid="ignore", divide="ignore"):
            tokens = weights @ self.tokens  # [n, L]
            means = np.tensordot(weights, self._sums, axes=1) / tokens[:, None]  # [n, 4, L]
            other = (weights @ self._other) / tokens
            means = np.concatenate([means, other[:, None]], axis=1)
            whole = np.concatenate([means, means[..., self._over].mean(-1, keepdims=True)], -1)
            index, greatest, cosine, right, other = np.moveaxis(whole, 1, 0)
            share = (index - 1) / (greatest - 1)
            found = np.stack([index, greatest, share, cosine, right, index - other])
        return np.moveaxis(found, 1, -1)

    def null(self, row: int) -> Numbers | None:
        """[2, J], I and share of a layer's row, None where experts were not dealt out anew."""
        if not self.at:
            return None
        if row == self.tokens.shape[1]:
            return np.asarray(self.draws[:, -1], float)
        return np.asarray(self.draws[:, self.at.index(row)], float) if row in self.at else None


def _row(found: _Sums, intervals: Intervals, row: int, layer: int | None) -> LayerInterference:
    L = found.tokens.shape[1]
    tokens = int(found.tokens.sum(axis=0)[row if row < L else slice(None)].min())

    def statistic(which: int) -> Statistic:
        return intervals.statistic((which, row), n_tokens=tokens)

    null = found.null(row)
    return LayerInterference(
        layer=layer,
        index=_against(statistic(_INDEX), None if null is None else null[0]),
        greatest=statistic(_GREATEST),
        share=_against(statistic(_SHARE), None if null is None else null[1]),
        excess=None if null is None else statistic(_EXCESS),
        top_cosine=statistic(_COSINE),
        top_cosine_at_right_angles=statistic(_AT_RIGHT_ANGLES),
    )


def _against(found: Statistic, null: Numbers | None) -> Statistic:
    if found.value is None or null is None or not np.isfinite(null).all():
        return found
    low, high = np.quantile(null, [0.025, 0.975]).tolist()
    tails = [permutation_p(found.value, null, tail=tail) for tail in ("greater", "less")]
    return msgspec.structs.replace(
        found,
        null_mean=float(null.mean()),
        null_low=low,
        null_high=high,
        p=min(1.0, 2 * min(tails)),
        caveat=joined("null: other experts of the layer, p two-sided", found.caveat),
    )
