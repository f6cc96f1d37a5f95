"""Which single attention heads a router reads: the share of every head in its logits.

The attention part of a layer, its own included, is split by head
(`moetui.analyses.single_sources`), z_{l,h} = ρ W̃ (W_o[:, h] x[h]) with x the heads side by side as
the output projection reads them. The projection's bias, and a layer in which a recurrence or a
convolution stands in attention's place, are one source each.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from moetui.analyses.single_sources import Numbers, SingleSums, single_shares
from moetui.stats import Statistic

DEFINITION = (
    "z_{l,h} is what head h of the attention of layer l added to the router's logits. Across "
    "tokens: Σ Cov(z_{l,h}, z) / Σ Var(z), its own variance included. Of the token: mean of "
    "⟨z_{l,h}, z⟩ / ‖z‖²"
)
NULL = (
    "null: what the heads added, exchanged between the tokens of every document; q is family-wise "
    "over all heads, for shares of either sign"
)


class HeadShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one head of the attention of decoder layer `layer` is of a router's logits.

    head: None for what is no head: the bias of the layer's output projection, or its whole
    attention where the layer is among `HeadShares.unsplit`. across_tokens: S, under permutation
    too; per_token: mean s.
    """

    layer: int
    head: int | None
    across_tokens: Statistic
    per_token: Statistic


class HeadShares(msgspec.Struct, frozen=True, kw_only=True):
    """The attention that the router of decoder layer `layer` reads.

    layers: those whose attention it is. unsplit: those of them in which a recurrence or a
    convolution stands in attention's place, one source each. heads: the largest share across
    tokens first, whatever its sign. together: their across-token share, which is that of
    attention. completeness: max over tokens and layers of what the heads of a layer miss of its
    attention, over the router's largest logit.
    """

    layer: int
    layers: tuple[int, ...]
    unsplit: tuple[int, ...]
    heads: tuple[HeadShare, ...]
    together: Statistic
    completeness: float
    documents: int
    tokens: int


class SourceHeads(msgspec.Struct, frozen=True, kw_only=True, tag="source_heads"):
    """The shares of single heads over a sample of documents of `corpus`, each cut to max_tokens
    tokens. documents_digest: SHA-256 over their ids and texts. caveat: of the corpus."""

    definition: str
    null: str
    shares: HeadShares
    corpus: str
    max_tokens: int
    documents_digest: str
    caveat: str | None = None


def head_shares(
    documents: Sequence[SingleSums],
    permuted: Numbers,
    layer: int,
    heads: Sequence[tuple[int, int]],
    *,
    seed: int,
) -> HeadShares:
    """Shares of all heads at the router of `layer`; see
    `moetui.analyses.single_sources.single_shares`.

    heads: (decoder layer, number of its heads, 0 where it stays one source) of every layer whose
    attention the router reads.
    """
    found = single_shares(documents, permuted, seed=seed)
    return HeadShares(
        layer=layer,
        layers=tuple(at for at, _ in heads),
        unsplit=tuple(at for at, number in heads if not number),
        heads=tuple(
            HeadShare(
                layer=heads[one.row][0],
                head=one.source - 1 if one.source else None,
                across_tokens=one.across_tokens,
                per_token=one.per_token,
            )
            for one in found.shares
        ),
        together=found.together,
        completeness=found.completeness,
        documents=found.documents,
        tokens=found.tokens,
    )
