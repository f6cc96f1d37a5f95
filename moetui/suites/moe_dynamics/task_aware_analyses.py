"""The analyses of the study `task_aware`: the published predictor, and the corrected ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from moetui.analyses.expert_ranks import sizes_of
from moetui.analyses.offload import DEFINITION as PLAN
from moetui.analyses.offload import OffloadPlan, Requests, capacities, offload_rows
from moetui.analyses.probe_features import layer_at
from moetui.analyses.probed_documents import (
    ProbedDocument,
    later_layers,
    read_probed,
    some_tokens,
)
from moetui.analyses.seed_prediction import SeedTask, seed_prediction
from moetui.analyses.task_aware import (
    Foretold,
    task_aware,
)
from moetui.demo import Split
from moetui.suites.moe_dynamics.both_halves import parts_of_both, used_of_both
from moetui.suites.moe_dynamics.routing import RoutingText
from moetui.suites.moe_dynamics.study import Setting
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo
from moetui.trace.types import ExpertIds, Floats

# Of the published run: layer 4 of 24.
DEPTH = 4 / 24


class CacheRun(msgspec.Struct, frozen=True, kw_only=True):
    """What the caches are asked: parameters `cache_documents`, `cache_shares`, `bandwidth`."""

    documents: int
    shares: tuple[float, ...]
    bandwidth: float


def probe_layer_of(asked: int | None, info: ModelInfo) -> int:
    """The decoder layer that is meant."""
    return layer_at(DEPTH, info.num_layers) if asked is None else asked


def _unfit(asked: int | None, info: ModelInfo) -> str | None:
    reason = no_router(info)
    if reason is not None:
        return reason
    probe = probe_layer_of(asked, info)
    if later_layers(probe, info.moe_layers):
        return None
    return (
        f"no layer routes after the probe's, {probe}; the last that does is {info.moe_layers[-1]}"
    )


class SeedTexts(msgspec.Struct, frozen=True, kw_only=True):
    """The published prompts, and the layer as asked for."""

    prompts: tuple[str, ...]
    probe_layer: int | None


@dataclass(frozen=True, eq=False)
class SeedRead:
    """Last tokens of P prompts: the stream [P, H], and the experts of R later layers [P, R, k]."""

    stream: Floats
    experts: ExpertIds


class TaskPromptsAnalysis:
    """The published predictor on the published prompts."""

    name = "task_prompts"
    needs: tuple[str, ...] = ()
    partial_type: Any = SeedRead

    def __init__(self, prompts: Sequence[str], probe_layer: int | None) -> None:
        self._inputs = SeedTexts(prompts=tuple(prompts), probe_layer=probe_layer)

    def settings(self, *, seed: int) -> Any:
        """The layer."""
        return self._inputs.probe_layer

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers after the probe's layer."""
        return _unfit(self._inputs.probe_layer, info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """All prompts in one."""
        return (Part(name="prompts", inputs=self._inputs, tokens=16 * len(self._inputs.prompts)),)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> SeedRead:
        """One pass a prompt."""
        given: SeedTexts = part.inputs
        probe = probe_layer_of(given.probe_layer, model.info)
        at = [i for i, layer in enumerate(model.info.moe_layers) if layer > probe]
        streams, experts = [], []
        for prompt in given.prompts:
            found = read_probed(model, prompt, model.tokenize(prompt), probe, gates=False)
            streams.append(found.stream[-1])
            experts.append(found.experts[-1][at])
            step(len(streams), len(given.prompts))
        return SeedRead(np.stack(streams), np.stack(experts))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Its scores."""
        found: SeedRead = partials[0]
        probe = probe_layer_of(self._inputs.probe_layer, info)
        targets = later_layers(probe, info.moe_layers)
        scores = seed_prediction(
            [found.stream] * len(targets),
            list(found.experts.swapaxes(0, 1)),
            targets,
            num_experts=info.num_experts,
            correlate=False,
            seed=seed,
        )
        return Outcome(SeedTask(probe_layer=probe, scores=scores))


class StreamsToRead(msgspec.Struct, frozen=True, kw_only=True):
    """Documents of one half, each cut to max_tokens tokens; sampled: of each calibration document
    so many are kept."""

    split: Split
    documents: tuple[RoutingText, ...]
    max_tokens: int
    probe_layer: int | None
    sampled: int


@dataclass(frozen=True, eq=False)
class StreamsRead:
    """The documents of a part; routes_error: why the routers were not asked."""

    split: Split
    documents: tuple[ProbedDocument, ...]
    routes_error: str | None


class TaskAwareAnalysis:
    """The corrected predictors, and what caches would do with them."""

    name = "task_aware"
    needs: tuple[str, ...] = ()
    partial_type: Any = StreamsRead

    def __init__(
        self,
        setting: Setting,
        *,
        probe_layer: int | None,
        sampled: int,
        shuffles: int,
        caches: CacheRun,
    ) -> None:
        self._setting, self._probe_layer = setting, probe_layer
        self._sampled, self._shuffles, self._caches = sampled, shuffles, caches

    def settings(self, *, seed: int) -> Any:
        """What the statistics depend on, and what is said of the corpus."""
        used = used_of_both(self._setting, seed=seed)
        return [self._probe_layer, self._shuffles, self._caches, *used]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers after the probe's layer."""
        return _unfit(self._probe_layer, info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        return tuple(
            parts_of_both(
                self._setting,
                StreamsToRead,
                seed=seed,
                probe_layer=self._probe_layer,
                sampled=self._sampled,
            )
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> StreamsRead:
        """One pass a document; the routers are asked about evaluation documents only."""
        given: StreamsToRead = part.inputs
        probe, judged = probe_layer_of(given.probe_layer, model.info), given.split == "evaluation"
        found = []
        for document in given.documents:
            ids = model.tokenize(document.text)[: given.max_tokens]
            one = read_probed(model, document.id, ids, probe, gates=judged)
            if not judged and given.sampled < len(ids):
                rng = np.random.default_rng([seed, *ids.tolist()])
                rows = np.sort(rng.choice(len(ids), given.sampled, replace=False))
                one = some_tokens(one, rows)
            found.append(one)
            step(len(found), len(given.documents))
        return StreamsRead(given.split, tuple(found), model.routes_error)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """All predictors and the plan, with intervals over evaluation documents."""
        sides: dict[str, list[ProbedDocument]] = {"calibration": [], "evaluation": []}
        for partial in partials:
            sides[partial.split] += partial.documents
        fit, judge = sides["calibration"], sides["evaluation"]
        probe = probe_layer_of(self._probe_layer, info)
        found, foretold = task_aware(
            fit,
            judge,
            probe_layer=probe,
            moe_layers=info.moe_layers,
            num_experts=info.num_experts,
            sizes=sizes_of(info.top_k, info.num_experts),
            gate_missing=partials[0].routes_error,
            shuffles=self._shuffles,
            seed=seed,
        )
        fit_corpus, corpus = used_of_both(self._setting, seed=seed)
        plan = self._plan(info, judge, foretold, probe, seed)
        return Outcome(
            msgspec.structs.replace(found, fit_corpus=fit_corpus, corpus=corpus, plan=plan)
        )

    def _plan(
        self,
        info: ModelInfo,
        judge: Sequence[ProbedDocument],
        foretold: Foretold,
        probe: int,
        seed: int,
    ) -> OffloadPlan:
        asked = self._caches
        requests = _requests(judge, foretold, info, probe, asked.documents, seed)
        sizes, bandwidth = info.expert_bytes, asked.bandwidth * 1e9
        return OffloadPlan(
            model=info.name,
            digest=info.digest,
            definition=PLAN,
            layers=info.moe_layers,
            num_experts=info.num_experts,
            top_k=info.top_k,
            expert_bytes=sizes,
            all_bytes=int(np.dot(sizes, info.experts_by_layer)) if sizes else None,
            bandwidth=bandwidth,
            probe_layer=probe,
            documents=int(requests.documents.max()) + 1,
            tokens=len(requests.documents),
            rows=offload_rows(
                requests,
                sizes,
                capacities(asked.shares, info.top_k, info.num_experts),
                layer_experts=info.experts_by_layer,
                bandwidth=bandwidth,
                seed=seed,
            ),
        )


def _requests(
    judge: Sequence[ProbedDocument],
    foretold: Foretold,
    info: ModelInfo,
    probe: int,
    limit: int,
    seed: int,
) -> Requests:
    """What at most `limit` documents asked for, in an order that is drawn: those of a corpus are
    sorted by domain, which no user's requests are."""
    order = np.random.default_rng([seed, 9]).permutation(len(judge))[:limit]
    starts = np.cumsum([0, *(len(one.ids) for one in judge)])
    rows = np.concatenate([np.arange(starts[d], starts[d + 1]) for d in order])
    at = [i for i, layer in enumerate(info.moe_layers) if layer > probe]
    return Requests(
        experts=np.concatenate([judge[d].experts for d in order]),
        documents=np.repeat(np.arange(len(order)), [len(judge[d].ids) for d in order]),
        ahead={
            name: {layer: each[rows] for layer, each in zip(at, experts, strict=True)}
            for name, experts in foretold.experts.items()
        },
    )
