"""The analysis of `attention_router` that goes down to single experts, and what it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moetui.analyses.source_experts import (
    DEFINITION,
    NULL,
    PERMUTATIONS,
    ExpertSums,
    SourceExperts,
    expert_shares,
    expert_sums,
    permuted_powers,
)
from moetui.stats import Statistic
from moetui.suites.attention_router_corpus import NO_CORPUS, CorpusPlan, Texts
from moetui.suites.layers import routing_layers
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.sanity import no_router
from moetui.suites.tables import Section, Table
from moetui.suites.wording import number
from moetui.trace import Forward, ModelInfo
from moetui.trace.types import Floats

# Of all experts before a router, so many are listed: the largest shares.
EXPERTS = 10


@dataclass(frozen=True, eq=False)
class ReadExperts:
    """The sums of some documents and, over all of them, the powers under permutation [P, M, X];
    error: why the experts could not be told apart."""

    documents: tuple[ExpertSums, ...]
    permuted: Floats
    error: str | None = None


class SourceExpertsAnalysis:
    """The shares of every earlier expert in the logits of one router: the last of the plan's.

    asked: whether there is a corpus at all.
    """

    name = "source_experts"
    needs: tuple[str, ...] = ()
    partial_type: Any = ReadExperts

    def __init__(self, plan: CorpusPlan, *, asked: bool) -> None:
        self._plan, self._asked = plan, asked

    def settings(self, *, seed: int) -> Any:
        """Layers, length and what is said of the corpus."""
        return [self._plan.layers, self._plan.max_tokens, self._plan.used(seed)]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, no documents, or no experts before the router.

        Raises UsageError for a layer that does not route."""
        if (reason := no_router(info)) is not None:
            return reason
        router = routing_layers(self._plan.layers, info)[-1]
        if self._plan.empty:
            return "no document was asked for (source_documents=0)" if self._asked else NO_CORPUS
        if router == info.moe_layers[0]:
            return f"no experts run before the router of layer {router}"
        return None

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        return self._plan.parts(seed=seed)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadExperts:
        """One pass a document."""
        given: Texts = part.inputs
        info, nothing = model.info, np.zeros((0, 0, 0), np.float32)
        if model.expert_sources_error is not None:
            return ReadExperts((), nothing, model.expert_sources_error)
        router = routing_layers(given.layers, info)[-1]
        X, invariant = info.num_experts, info.shift_invariant
        earlier = info.moe_layers.index(router)
        permuted = np.zeros((PERMUTATIONS, earlier, X))
        sums: list[ExpertSums] = []
        for document in given.documents:
            ids = model.tokenize(document.text)[: given.max_tokens]
            found = model.expert_sources(ids, router)
            sums.append(expert_sums(found, X, shift_invariant=invariant))
            permuted += permuted_powers(
                found, X, document.text, seed=seed, shift_invariant=invariant
            )
            step(len(sums), len(given.documents))
        return ReadExperts(tuple(sums), permuted.astype(np.float32))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Shares with intervals over documents, and their test."""
        errors = [partial.error for partial in partials if partial.error is not None]
        documents = [one for partial in partials for one in partial.documents]
        if errors or not any(one.tokens for one in documents):
            return Outcome(None, errors[0] if errors else "no token has all its router data")
        router = routing_layers(self._plan.layers, info)[-1]
        drawn = self._plan.sample(seed)
        return Outcome(
            SourceExperts(
                definition=DEFINITION,
                null=NULL,
                shares=expert_shares(
                    documents,
                    np.sum([partial.permuted for partial in partials], axis=0, dtype=float),
                    router,
                    [layer for layer in info.moe_layers if layer < router],
                    seed=seed,
                ),
                corpus=drawn.name,
                max_tokens=self._plan.max_tokens,
                documents_digest=drawn.digest,
                caveat=drawn.caveat,
            )
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
    sure = sum(_above(one.across_tokens) for one in shares.experts)
    return (
        f"{model}: router of layer {shares.layer}; {experts:,} experts of layers "
        f"{', '.join(map(str, shares.earlier))}, {shares.never_chosen:,} never chosen; "
        f"{sure:,} have a larger share than by exchange (q ≤ 0.05). {shares.documents} documents, "
        f"{shares.tokens:,} tokens; the experts of a layer miss its routed part by at most "
        f"{number(shares.completeness)} of the logits."
    )


def _above(share: Statistic) -> bool:
    if share.q is None or share.value is None or share.null_mean is None:
        return False
    return share.q <= 0.05 and share.value > share.null_mean


def _table(model: str, found: SourceExperts) -> Table:
    rows = tuple(
        (str(one.layer), f"E{one.expert}", one.across_tokens, one.per_token, one.chosen)
        for one in found.shares.experts[:EXPERTS]
    )
    whole = ("all", "all", found.shares.together, None, None)
    return Table(
        title=f"{model}: experts before the router of layer {found.shares.layer}, the largest",
        columns=("layer", "expert", "across tokens", "of the token", "tokens that chose it"),
        rows=(*rows, whole),
        caption="95 % interval over documents in brackets",
    )
