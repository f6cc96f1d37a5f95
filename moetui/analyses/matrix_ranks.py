"""How many directions routers and experts use, and what a layer's experts have in common.

Nothing here runs the model: the numbers are those of the weights, beside random matrices of the
same shape (rank) and beside experts of another layer (what is in common).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from moetui.analyses.weight_similarity import STATIC
from moetui.stats import Statistic, finite
from moetui.stats.spectrum import effective_rank, random_rank, random_ranks
from moetui.trace import Forward
from moetui.trace.types import Floats

ROUTER, ROUTER_CENTRED = "router", "router, less its mean row"
DEFINITION = (
    "effective rank: the fewest singular directions that hold {energy:g} of a matrix's energy "
    "(squared entries). Of a router as it is and less its mean row (a constant added to all "
    "logits changes nothing in softmax); of experts' matrices as they are and less the mean of "
    "the layer's experts that were compared"
)
NULL = (
    "null: matrices of independent entries of the same shape, drawn ({draws}) or, where that takes "
    "too long, by the law of Marchenko and Pastur, which has no band"
)
COMMON = (
    "in common: Σ_(i ≠ j) W_i · W_j ÷ ((n − 1) Σ ‖W_i‖²), the share of the energy of n experts' "
    "matrices that all have alike, as they lie; 0 for independent, 1 for equal ones; null: the "
    "same between experts of two layers"
)
COMMON_NULL = "null: the same between experts of two layers, mean of layers"
DRAWS = 20
# Matrices with more entries, or more rows and columns, are not drawn.
_ENTRIES, _SIDE = 1 << 20, 256


class MatrixRank(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of matrix of one layer. rank: mean effective rank of its `matrices` matrices of
    `rows` × `columns`, beside random ones; lowest, highest: of them; relative: mean rank ÷ that
    of random matrices."""

    what: str
    layer: int
    matrices: int
    rows: int
    columns: int
    rank: Statistic
    lowest: int
    highest: int
    relative: float | None


class InCommon(msgspec.Struct, frozen=True, kw_only=True):
    """One matrix of a layer's experts, by name: what `experts` of them have in common."""

    what: str
    layer: int
    experts: int
    share: Statistic


class MatrixRanks(msgspec.Struct, frozen=True, kw_only=True, tag="matrix_ranks"):
    """All kinds of matrices of all layers asked for. energy: what the rank is taken at."""

    definition: str
    null: str
    in_common: str
    energy: float
    ranks: tuple[MatrixRank, ...]
    common: tuple[InCommon, ...]

    def of(self, what: str) -> list[MatrixRank]:
        """One kind, layer by layer."""
        return [one for one in self.ranks if one.what == what]

    def shares(self, what: str) -> list[InCommon]:
        """What one matrix has in common, layer by layer."""
        return [one for one in self.common if one.what == what]


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerRanks:
    """What one layer's matrices showed: by kind, rows, columns and the rank of each; by matrix,
    how many experts, their share in common and that of pairs with the partner's (NaN without)."""

    layer: int
    ranks: dict[str, tuple[int, int, tuple[int, ...]]]
    common: dict[str, tuple[int, float, float]]


def difference_name(matrix: str) -> str:
    """What the kind of `matrix` less the mean expert is called."""
    return f"{matrix}, less the mean expert"


def layer_ranks(
    model: Forward,
    layer: int,
    partner: int | None,
    *,
    experts: Sequence[int],
    others: Sequence[int],
    energy: float,
) -> LayerRanks:
    """The matrices of `experts` of a layer; of `others` of its partner, for the null."""
    router = model.router_matrix(layer)
    ranks = {
        ROUTER: (*router.shape, (effective_rank(router, energy),)),
        ROUTER_CENTRED: (*router.shape, (effective_rank(router - router.mean(axis=0), energy),)),
    }
    matrices = _matrices(model, layer, experts)
    strangers = {} if partner is None else _matrices(model, partner, others)
    common = {}
    for name, stack in matrices.items():
        rows, columns = stack.shape[1:]
        ranks[name] = (rows, columns, tuple(effective_rank(one, energy) for one in stack))
        if len(stack) > 1:
            apart = stack - stack.mean(axis=0)
            found = tuple(effective_rank(one, energy) for one in apart)
            ranks[difference_name(name)] = (rows, columns, found)
            common[name] = (len(stack), *_in_common(stack, strangers.get(name)))
    return LayerRanks(layer=layer, ranks=ranks, common=common)


def matrix_ranks(layers: Sequence[LayerRanks], *, energy: float, seed: int) -> MatrixRanks:
    """What was read, beside random matrices; one null for every shape."""
    nulls: dict[tuple[int, int, bool], Statistic] = {}
    ranks = []
    for one in layers:
        for what, (rows, columns, found) in one.ranks.items():
            key = rows, columns, what == ROUTER_CENTRED
            if key not in nulls:
                nulls[key] = _null(*key, energy=energy, seed=seed)
            ranks.append(_rank(what, one.layer, rows, columns, found, nulls[key]))
    return MatrixRanks(
        definition=DEFINITION.format(energy=energy),
        null=NULL.format(draws=DRAWS),
        in_common=COMMON,
        energy=energy,
        ranks=tuple(ranks),
        common=tuple(
            InCommon(
                what=what,
                layer=one.layer,
                experts=n,
                share=Statistic(value=finite(share), null_mean=finite(null), caveat=STATIC),
            )
            for one in layers
            for what, (n, share, null) in one.common.items()
        ),
    )


def _matrices(model: Forward, layer: int, experts: Sequence[int]) -> Mapping[str, Floats]:
    found = model.expert_matrices(layer, experts)
    return {**found.into, **found.out_of}


def _in_common(stack: Floats, strangers: Floats | None) -> tuple[float, float]:
    """Of n matrices [n, rows, columns], and between them and those of another layer."""
    n = len(stack)
    flat = stack.reshape(n, -1)
    gram = flat.astype(float) @ flat.T.astype(float)
    norms = np.trace(gram)
    if norms <= 0:
        return np.nan, np.nan
    share = (gram.sum() - norms) / ((n - 1) * norms)
    if strangers is None or strangers.shape[1:] != stack.shape[1:]:
        return float(share), np.nan
    other = strangers.reshape(len(strangers), -1).astype(float)
    scale = np.sqrt(norms / n * (other**2).sum() / len(other))
    null = (flat.astype(float) @ other.T).mean() / scale if scale > 0 else np.nan
    return float(share), float(null)


def _null(rows: int, columns: int, centred: bool, *, energy: float, seed: int) -> Statistic:
    if rows * columns > _ENTRIES or min(rows, columns) > _SIDE:
        return Statistic(
            null_mean=random_rank(rows, columns, energy), caveat="null by Marchenko-Pastur, no band"
        )
    drawn = random_ranks(rows, columns, draws=DRAWS, seed=seed, energy=energy, centred=centred)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Statistic(
        null_mean=float(drawn.mean()), null_low=float(low), null_high=float(high), seed=seed
    )


def _rank(
    what: str, layer: int, rows: int, columns: int, found: Sequence[int], null: Statistic
) -> MatrixRank:
    mean = float(np.mean(found))
    told = "; ".join(filter(None, (STATIC, null.caveat)))
    return MatrixRank(
        what=what,
        layer=layer,
        matrices=len(found),
        rows=rows,
        columns=columns,
        rank=msgspec.structs.replace(null, value=mean, caveat=told),
        lowest=min(found),
        highest=max(found),
        relative=mean / null.null_mean if null.null_mean else None,
    )
