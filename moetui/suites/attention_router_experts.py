"""The analysis of `attention_router` that goes down to single experts, and what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moetui.analyses.single_sources import Split
from moetui.analyses.source_experts import DEFINITION, NULL, SourceExperts, expert_shares
from moetui.suites.attention_router_singles import (
    LISTED,
    AllSingles,
    SinglesAnalysis,
    above_null,
)
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Section, Table
from moetui.suites.wording import number
from moetui.trace import Forward, ModelInfo


class SourceExpertsAnalysis(SinglesAnalysis):
    """The shares of every earlier expert in the logits of one router."""

    name = "source_experts"

    def unfit(self, info: ModelInfo) -> str | None:
        """Also a router before which no experts run."""
        if (reason := super().unfit(info)) is not None:
            return reason
        router = self.router(info)
        if router == info.moe_layers[0]:
            return f"no experts run before the router of layer {router}"
        return None

    def refused(self, model: Forward) -> str | None:
        """Where the experts' sum is projected, or mixed with another part."""
        return model.expert_sources_error

    def split(
        self, model: Forward, ids: Any, router: int
    ) -> tuple[Split, int, tuple[tuple[int, int], ...]]:
        """The chosen experts of earlier layers."""
        found, experts = model.expert_sources(ids, router), model.info.num_experts
        return found, experts, tuple((layer, experts) for layer in found.layers.tolist())

    def result(self, read: AllSingles, *, seed: int) -> SourceExperts:
        """The shares of all experts."""
        earlier = [layer for layer, _ in read.layers]
        return SourceExperts(
            definition=DEFINITION,
            null=NULL,
            shares=expert_shares(read.documents, read.permuted, read.router, earlier, seed=seed),
            corpus=read.drawn.name,
            max_tokens=self.max_tokens,
            documents_digest=read.drawn.digest,
            caveat=read.drawn.caveat,
        )


def sections(result: SuiteResult) -> Iterator[Section]:
    """The experts that a router reads most, model by model."""
    found = [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, SourceExperts)
    ]
    if found:
        yield Section(
            heading="Which experts a router reads",
            text=(
                f"{found[0][1].definition}.",
                f"{found[0][1].null}.",
                *(_said(model, one) for model, one in found),
            ),
            tables=tuple(_table(model, one) for model, one in found),
        )


def _said(model: str, found: SourceExperts) -> str:
    shares = found.shares
    experts = len(shares.experts) + shares.never_chosen
    return (
        f"{model}: router of layer {shares.layer}; {experts:,} experts of layers "
        f"{', '.join(map(str, shares.earlier))}, {shares.never_chosen:,} never chosen; "
        f"{above_null(one.across_tokens for one in shares.experts):,} have a larger share than by "
        f"exchange (q ≤ 0.05). {shares.documents} documents, "
        f"{shares.tokens:,} tokens; the experts of a layer miss its routed part by at most "
        f"{number(shares.completeness)} of the logits."
    )


def _table(model: str, found: SourceExperts) -> Table:
    rows = tuple(
        (str(one.layer), f"E{one.expert}", one.across_tokens, one.per_token, one.chosen)
        for one in found.shares.experts[:LISTED]
    )
    whole = ("all", "all", found.shares.together, None, None)
    return Table(
        title=f"{model}: experts before the router of layer {found.shares.layer}, the largest",
        columns=("layer", "expert", "across tokens", "of the token", "tokens that chose it"),
        rows=(*rows, whole),
        caption="95 % interval over documents in brackets",
    )
