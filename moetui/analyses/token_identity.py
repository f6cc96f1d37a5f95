"""How much of a router's logits the token's identity alone foretells.

η² = 1 − Var(z − E[z | token]) / Var(z), with E taken from other documents only. Attention can
carry the token's own identity forward, so a large share of attention and a large η² are no
contradiction: together they say that context is not what decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.stats import Statistic, document_bootstrap, document_intervals, ratio_of_sums
from moetui.stats.permutation import permutation_p
from moetui.trace import ModelInfo, Trace
from moetui.trace.shares import centred
from moetui.trace.types import Floats, Ints

Numbers = NDArray[np.float64]

# Other documents in which a token has to occur for its mean to be known, and ids for a verdict.
MIN_OTHERS, MIN_IDS = 5, 200
SHUFFLES = 99
DEFINITION = (
    "η² = 1 − Var(z − E[z | token]) / Var(z) of the centred router logits, summed over experts; E "
    f"is the token's mean over the other documents, for tokens that occur in {MIN_OTHERS} of them"
)
NULL = (
    "null: token ids exchanged within every document; intervals take E as given; below 0 where E "
    "foretells worse than no information"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenSums:
    """Sums of one document by its n different token ids, for L layers and E experts.

    ids: int32 [n], ascending; counts: [n], usable tokens of each; total: float64 [n, L, E], Σ z̃;
    squares: [n, L], Σ ‖z̃‖². tokens: of the document, usable or not.
    """

    ids: Ints
    counts: Numbers
    total: Numbers
    squares: Numbers
    tokens: int


class LayerIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """η² at one layer, or (layer None) its mean over `TokenIdentity.mean_layers`."""

    layer: int | None
    eta2: Statistic


class TokenIdentity(msgspec.Struct, frozen=True, kw_only=True, tag="token_identity"):
    """ids: different tokens whose mean is known; coverage: share of all tokens that they make up.

    verdict: "measured", or "inconclusive" with the reason (the numbers may stand nevertheless).
    """

    definition: str
    null: str
    layers: tuple[LayerIdentity, ...]
    mean_layers: tuple[int, ...]
    mean: LayerIdentity | None
    ids: int
    min_ids: int
    coverage: Statistic
    documents: int
    verdict: str
    reason: str | None


def token_sums(trace: Trace, layers: Sequence[int]) -> TokenSums:
    """The sums of one document at the decoder layers `layers`; tokens with a logit missing at any
    of them are left out."""
    at = [trace.layers.tolist().index(layer) for layer in layers]
    logits: Floats = trace.router_logits[:, at]
    known = np.isfinite(logits)
    padding = ~known.any(axis=0)
    keep = (known | padding).all(axis=(1, 2))
    z = np.nan_to_num(centred(logits, shift_invariant=trace.model.shift_invariant))[keep]
    ids, group = np.unique(trace.token_ids[keep], return_inverse=True)
    total = np.zeros((len(ids), *z.shape[1:]))
    np.add.at(total, group, z)
    squares = np.zeros((len(ids), len(at)))
    np.add.at(squares, group, (z**2).sum(axis=-1))
    return TokenSums(
        ids=ids.astype(np.int32),
        counts=np.bincount(group, minlength=len(ids)).astype(float),
        total=total,
        squares=squares,
        tokens=len(trace),
    )


def token_identity(
    model: ModelInfo, documents: Sequence[TokenSums], layers: Sequence[int], *, seed: int
) -> TokenIdentity:
    """η² over documents at the decoder layers `layers`. Raises ValueError for no documents."""
    if not documents:
        raise ValueError("η² needs documents")
    table = _Table(documents)
    known = table.known(table.labels)
    ids = len(np.unique(table.labels[known]))
    tokens = [float(one.tokens) for one in documents]
    covered = np.bincount(table.document, weights=table.counts * known, minlength=len(documents))
    coverage = document_bootstrap(
        ratio_of_sums(covered, tokens), len(documents), seed=seed, n_tokens=int(sum(tokens))
    )
    above = [index for index, layer in enumerate(layers) if layer > 0] or [*range(len(layers))]
    rows = _rows(table, layers, above, seed) if known.any() else ()
    enough = ids >= MIN_IDS
    return TokenIdentity(
        definition=DEFINITION,
        null=NULL,
        layers=rows[:-1],
        mean_layers=tuple(layers[index] for index in above),
        mean=rows[-1] if rows else None,
        ids=ids,
        min_ids=MIN_IDS,
        coverage=coverage,
        documents=len(documents),
        verdict="measured" if enough else "inconclusive",
        reason=None
        if enough
        else f"{ids} token ids occur in {MIN_OTHERS} other documents, {MIN_IDS} needed",
    )


def _rows(
    table: _Table, layers: Sequence[int], above: list[int], seed: int
) -> tuple[LayerIdentity, ...]:
    sums = table.document_sums(table.labels)

    def with_mean(values: Numbers) -> Numbers:
        return np.concatenate([values, values[..., above].mean(axis=-1, keepdims=True)], axis=-1)

    found = document_intervals(
        lambda weights: with_mean(_eta2(weights, sums)).T, table.documents, seed=seed
    )
    rng = np.random.default_rng(seed)
    everyone = np.ones((1, table.documents))
    null = np.stack(
        [
            with_mean(_eta2(everyone, table.document_sums(table.shuffled(rng))))[0]
            for _ in range(SHUFFLES)
        ]
    )
    tokens = int(sums[0].sum())
    rows = []
    for row, layer in enumerate((*layers, None)):
        statistic = found.statistic((row,), n_tokens=tokens)
        if statistic.value is not None and np.isfinite(null[:, row]).all():
            low, high = np.quantile(null[:, row], [0.025, 0.975]).tolist()
            statistic = msgspec.structs.replace(
                statistic,
                null_mean=float(null[:, row].mean()),
                null_low=low,
                null_high=high,
                p=permutation_p(statistic.value, null[:, row]),
            )
        rows.append(LayerIdentity(layer=layer, eta2=statistic))
    return tuple(rows)


# Per document, over its tokens whose mean is known elsewhere: how many [D]; Σ z̃ [D, L, E] and
# Σ ‖z̃‖² [D, L]; the same of what is left of z̃ without that mean.
_Sums = tuple[Numbers, Numbers, Numbers, Numbers, Numbers]


def _eta2(weights: Numbers, sums: _Sums) -> Numbers:
    """[R, L] for multiplicities [R, D]."""
    n, total, squares, left, left_squares = (np.tensordot(weights, one, axes=1) for one in sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = squares - (total**2).sum(axis=-1) / n[:, None]
        unexplained = left_squares - (left**2).sum(axis=-1) / n[:, None]
        eta2: Numbers = np.where(variance > 1e-9 * squares, 1 - unexplained / variance, np.nan)
    return eta2


class _Table:
    """The documents' sums as one list of m (document, token) pairs.

    document, labels: [m], index of the document, of the token id; counts: [m].
    """

    def __init__(self, documents: Sequence[TokenSums]) -> None:
        sizes = [len(one.ids) for one in documents]
        self.documents = len(documents)
        self.document = np.repeat(np.arange(self.documents), sizes)
        ids, self.labels = np.unique(
            np.concatenate([one.ids for one in documents]), return_inverse=True
        )
        self._ids = len(ids)
        self.counts: Numbers = np.concatenate([one.counts for one in documents])
        self._total: Numbers = np.concatenate([one.total for one in documents])
        self._squares: Numbers = np.concatenate([one.squares for one in documents])

    def known(self, labels: NDArray[np.intp]) -> NDArray[np.bool_]:
        """[m]: the pairs whose token occurs in enough other documents."""
        return np.asarray((np.bincount(labels, minlength=self._ids) - 1)[labels] >= MIN_OTHERS)

    def shuffled(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Labels exchanged within every document."""
        order = np.lexsort((rng.random(len(self.labels)), self.document))
        return self.labels[order]

    def document_sums(self, labels: NDArray[np.intp]) -> _Sums:
        """The sums that η² is made of, were `labels` the pairs' tokens."""
        from scipy import sparse

        pairs = np.arange(len(labels))
        by_id = sparse.csr_array((np.ones(len(labels)), (labels, pairs)))
        flat = self._total.reshape(len(labels), -1)
        known = self.known(labels)
        count = np.bincount(labels, weights=self.counts, minlength=self._ids)[labels] - self.counts
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = ((by_id @ flat)[labels] - flat) / count[:, None]
        mean = np.where(known[:, None], mean, 0.0).reshape(self._total.shape)
        c = np.where(known, self.counts, 0.0)[:, None]
        total = np.where(known[:, None, None], self._total, 0.0)
        squares = np.where(known[:, None], self._squares, 0.0)
        left = total - c[..., None] * mean
        product = (mean * total).sum(axis=-1)
        left_squares = squares - 2 * product + c * (mean**2).sum(axis=-1)
        return (
            self._by_document(c[:, 0]),
            self._by_document(total),
            self._by_document(squares),
            self._by_document(left),
            self._by_document(left_squares),
        )

    def _by_document(self, values: Numbers) -> Numbers:
        starts = np.flatnonzero(np.diff(self.document, prepend=-1))
        found = np.zeros((self.documents, *values.shape[1:]))
        found[self.document[starts]] = np.add.reduceat(values, starts, axis=0)
        return found
