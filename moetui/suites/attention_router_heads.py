"""The analysis of `attention_router` that goes down to single heads, and what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moetui.analyses.single_sources import Split
from moetui.analyses.source_heads import (
    DEFINITION,
    NULL,
    HeadShare,
    HeadShares,
    SourceHeads,
    head_shares,
)
from moetui.suites.attention_router_singles import (
    LISTED,
    AllSingles,
    SinglesAnalysis,
    above_null,
)
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Section, Table
from moetui.suites.wording import number
from moetui.trace import Forward


class SourceHeadsAnalysis(SinglesAnalysis):
    """The shares of every attention head, the router's own layer included, in the logits of one
    router."""

    name = "source_heads"

    def refused(self, model: Forward) -> str | None:
        """Where attention is no sum over heads, or mixed with another part."""
        return model.head_sources_error

    def split(
        self, model: Forward, ids: Any, router: int
    ) -> tuple[Split, int, tuple[tuple[int, int], ...]]:
        """The heads of all layers whose attention the router reads, and what is no head."""
        found = model.head_sources(ids, router)
        layers = zip(found.layers.tolist(), found.heads.tolist(), strict=True)
        return found, found.logits.shape[2], tuple(layers)

    def result(self, read: AllSingles, *, seed: int) -> SourceHeads:
        """The shares of all heads."""
        return SourceHeads(
            definition=DEFINITION,
            null=NULL,
            shares=head_shares(read.documents, read.permuted, read.router, read.layers, seed=seed),
            corpus=read.drawn.name,
            max_tokens=self.max_tokens,
            documents_digest=read.drawn.digest,
            caveat=read.drawn.caveat,
        )


def sections(result: SuiteResult) -> Iterator[Section]:
    """The heads that a router reads most, model by model."""
    found = [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, SourceHeads)
    ]
    if found:
        yield Section(
            heading="Which heads a router reads",
            text=(
                f"{found[0][1].definition}.",
                f"{found[0][1].null}.",
                *(_said(model, one) for model, one in found),
            ),
            tables=tuple(_table(model, one) for model, one in found),
        )


def _said(model: str, found: SourceHeads) -> str:
    shares = found.shares
    heads = [one for one in shares.heads if one.head is not None]
    unsplit = (
        f"; no attention heads in layers {', '.join(map(str, shares.unsplit))}, one source each"
        if shares.unsplit
        else ""
    )
    return (
        f"{model}: router of layer {shares.layer}; {len(heads):,} heads of layers "
        f"{', '.join(str(at) for at in shares.layers if at not in shares.unsplit)}{unsplit}; "
        f"{above_null(one.across_tokens for one in heads):,} heads have a larger share than by "
        f"exchange (q ≤ 0.05). {shares.documents} documents, "
        f"{shares.tokens:,} tokens; the heads of a layer miss its attention by at most "
        f"{number(shares.completeness)} of the logits."
    )


def _table(model: str, found: SourceHeads) -> Table:
    shares = found.shares
    rows = tuple(
        (str(one.layer), _source(one, shares), one.across_tokens, one.per_token)
        for one in shares.heads[:LISTED]
    )
    return Table(
        title=f"{model}: heads read by the router of layer {shares.layer}, the largest",
        columns=("layer", "head", "across tokens", "of the token"),
        rows=(*rows, ("all", "all", shares.together, None)),
        caption="95 % interval over documents in brackets",
    )


def _source(share: HeadShare, shares: HeadShares) -> str:
    if share.head is not None:
        return f"H{share.head}"
    return "no heads: whole" if share.layer in shares.unsplit else "output bias"
