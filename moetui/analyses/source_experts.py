"""Which single experts a later router reads: the share of every expert in its logits.

The routed part of a layer is split by expert (`moetui.analyses.single_sources`), z_{l,e} =
ρ W̃ (weight · output) at the tokens that chose e in layer l and 0 at all others.
`moetui.analyses.source_heads` splits attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from moetui.analyses.single_sources import Numbers, SingleSums, single_shares
from moetui.stats import Statistic

DEFINITION = (
    "z_{l,e} is what expert e of layer l added to the router's logits, 0 at tokens that did not "
    "choose it. Across tokens: Σ Cov(z_{l,e}, z) / Σ Var(z), its own variance included. Of the "
    "token: mean of ⟨z_{l,e}, z⟩ / ‖z‖²"
)
NULL = (
    "null: what the earlier experts added, exchanged between the tokens of every document; q is "
    "family-wise over all experts, for shares of either sign"
)


class ExpertShare(msgspec.Struct, frozen=True, kw_only=True):
    """What expert `expert` of decoder layer `layer` is of a later router's logits.

    across_tokens: S, under permutation too; per_token: mean s. chosen: tokens that chose it.
    """

    layer: int
    expert: int
    across_tokens: Statistic
    per_token: Statistic
    chosen: int


class ExpertShares(msgspec.Struct, frozen=True, kw_only=True):
    """The experts before the router of decoder layer `layer`.

    experts: all that some token chose, the largest share across tokens first, whatever its sign.
    together: their across-token share, which is that of the routed experts. earlier: the layers
    that they are of. completeness: max over tokens and layers of what the experts of a layer miss
    of its routed part, over the router's largest logit.
    """

    layer: int
    earlier: tuple[int, ...]
    experts: tuple[ExpertShare, ...]
    never_chosen: int
    together: Statistic
    completeness: float
    documents: int
    tokens: int


class SourceExperts(msgspec.Struct, frozen=True, kw_only=True, tag="source_experts"):
    """The shares of single experts over a sample of documents of `corpus`, each cut to max_tokens
    tokens. documents_digest: SHA-256 over their ids and texts. caveat: of the corpus."""

    definition: str
    null: str
    shares: ExpertShares
    corpus: str
    max_tokens: int
    documents_digest: str
    caveat: str | None = None


def expert_shares(
    documents: Sequence[SingleSums],
    permuted: Numbers,
    layer: int,
    earlier: Sequence[int],
    *,
    seed: int,
) -> ExpertShares:
    """Shares of all experts of the decoder layers `earlier` at the router of `layer`; see
    `moetui.analyses.single_sources.single_shares`."""
    found = single_shares(documents, permuted, seed=seed)
    return ExpertShares(
        layer=layer,
        earlier=tuple(earlier),
        experts=tuple(
            ExpertShare(
                layer=earlier[one.row],
                expert=one.source,
                across_tokens=one.across_tokens,
                per_token=one.per_token,
                chosen=one.tokens,
            )
            for one in found.shares
        ),
        never_chosen=int(np.size(documents[0].tokens_of)) - len(found.shares),
        together=found.together,
        completeness=found.completeness,
        documents=found.documents,
        tokens=found.tokens,
    )
