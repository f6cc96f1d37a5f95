"""What `circuits` may be asked, and of which models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from moetui.analyses.seed_circuits import PROMPTS
from moetui.suites.moe_dynamics.study import Count, Positive, Text
from moetui.suites.sanity import no_router
from moetui.trace import ModelInfo

EDGES = "circuits_edges"
"""Name of the analysis that finds edges."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Level = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Permutations = Annotated[int, msgspec.Meta(ge=999)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `circuits` may be asked."""

    circuit_prompts: Annotated[
        tuple[Text, ...], msgspec.Meta(min_length=1, description="prompts of the seed's circuits")
    ] = PROMPTS
    correlation: Annotated[
        Share,
        msgspec.Meta(description="seed: correlation from which experts of two layers are matched"),
    ] = 0.3
    distance: Annotated[
        Positive,
        msgspec.Meta(description="routing layers that an edge may span: 1 for neighbours only"),
    ] = 1
    lift: Annotated[
        float,
        msgspec.Meta(
            ge=1,
            description="how many times more often than independent layers would two experts of an "
            "edge meet, in both halves of the documents",
        ),
    ] = 2.0
    edge_level: Annotated[
        Level,
        msgspec.Meta(description="family-wise p of an edge over all pairs of experts and layers"),
    ] = 0.01
    edge_permutations: Annotated[
        Permutations, msgspec.Meta(description="shuffles behind that p, 999 or more")
    ] = 999
    causal_edges: Annotated[
        Count,
        msgspec.Meta(
            description="edges whose source is silenced, of those that begin in `layers`: the ones "
            "that beat most shuffles, of these with most evidence (G²); 0 for none"
        ),
    ] = 12
    causal_controls: Annotated[
        Positive,
        msgspec.Meta(description="random experts of a layer that are silenced instead"),
    ] = 20
    causal_documents: Annotated[
        Positive,
        msgspec.Meta(description="evaluation documents on which it is done; 20 are needed"),
    ] = 60


QUICK: Mapping[str, Any] = {"causal_edges": 4, "causal_controls": 6, "causal_documents": 30}
FULL: Mapping[str, Any] = {"causal_edges": 60, "causal_documents": 200, "distance": 2}


def one_router(info: ModelInfo) -> str | None:
    """Why no two layers can be compared, None where they can."""
    if (reason := no_router(info)) is not None:
        return reason
    if len(info.moe_layers) < 2:
        return f"only layer {info.moe_layers[0]} routes: there is no second layer"
    return None
