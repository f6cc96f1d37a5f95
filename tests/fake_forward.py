"""A model whose routing and logits follow from its token ids by hand, for causal analyses.

At layer l token i chooses the experts i + l, i + l + 1, … (k of them, modulo E), each with weight
1/k, the next one in that order being the next best. Expert e of layer l adds weight · push[l, e]
to the logit of token 0 at its own and every later position; every other logit is 0. So after a
change that moves this logit from x to y, and with V tokens, everything is known in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.what_if import WhatIf, WhatIfRequest, what_if
from moetui.errors import UsageError
from moetui.trace import (
    Ban,
    Deselect,
    Drop,
    ExpertSources,
    Force,
    HeadSources,
    Intervention,
    LensReadout,
    ModelInfo,
    Prompt,
    ScalePart,
    TopK,
    Trace,
)
from moetui.trace.types import ExpertIds, Floats, Ints
from tests.builders import make_model_info, make_trace

Numbers = NDArray[np.float64]


class FakeForward:
    """Implements the Forward protocol; `passes` lists the forward passes it was asked for.

    push: [L, E] (all 0 by default). attention: [L], what each layer's attention adds to the same
    logit. steering: (layer, expert) pairs: where the weight of such an expert is not what it
    would be, every later layer chooses one expert further on. moe_layers: those that route.
    """

    def __init__(
        self,
        *,
        layers: int = 4,
        experts: int = 24,
        k: int = 2,
        vocabulary: int = 32,
        moe_layers: Sequence[int] | None = None,
        push: Any = None,
        attention: Any = None,
        steering: Sequence[tuple[int, int]] = (),
        **info: Any,
    ) -> None:
        self.info = make_model_info(
            num_layers=layers,
            num_experts=experts,
            top_k=k,
            moe_layers=moe_layers,
            vocab_size=vocabulary,
            **info,
        )
        self.push = np.zeros((layers, experts)) if push is None else np.asarray(push, float)
        self.attention = np.zeros(layers) if attention is None else np.asarray(attention, float)
        self.steering = tuple(steering)
        self.passes: list[tuple[str, tuple[Intervention, ...]]] = []

    def tokenize(self, text: str) -> Ints:
        raise UsageError("this model reads ids only", "give ids")

    def trace(
        self,
        text_or_ids: Prompt,
        *,
        lens: int = 5,
        residuals: bool = True,
        streams: bool = False,
        attention: bool = False,
        expert_outputs: bool = False,
        sources: Sequence[int] = (),
        interventions: Sequence[Intervention] = (),
    ) -> Trace:
        self.passes.append(("trace", tuple(interventions)))
        ids = self._ids(text_or_ids)
        order, weights, logits = self._forward(ids, interventions)
        E, top = self.info.num_experts, _slots(self.info.top_k, interventions)
        scores = np.zeros(order.shape)
        np.put_along_axis(scores, order, np.arange(E, 0, -1) / E, axis=-1)
        chosen = order[..., :top]
        whole = make_trace(
            len(ids), self.info.num_layers, E, top, with_parts=False, with_lens=False,
            moe_layers=self.info.moe_layers, tokens=[f" w{i}" for i in ids],
        )  # fmt: skip
        return replace(
            whole,
            model=self.info,
            token_ids=np.asarray(ids, np.int32),
            router_logits=scores.astype(np.float32),
            selection_scores=scores.astype(np.float32),
            expert_ids=chosen.astype(np.int16),
            expert_weights=np.take_along_axis(weights, chosen, axis=-1).astype(np.float32),
            logits=logits[-1].astype(np.float32),
            lens=self._lens(logits[-1], len(ids) - 1, lens) if lens else None,
        )

    def next_logits(self, text_or_ids: Prompt) -> Floats:
        logits: Floats = self._forward(self._ids(text_or_ids), ())[2][-1].astype(np.float32)
        return logits

    routes_error = "this model has no residual stream"

    def routes(self, layer: int, streams: Floats) -> ExpertIds:
        raise UsageError(self.routes_error, "ask for whole passes")

    def router_scores(self, layer: int, streams: Floats) -> Floats | None:
        return None

    expert_sources_error = "this model has no residual stream"

    def expert_sources(self, text_or_ids: Prompt, layer: int) -> ExpertSources:
        raise UsageError(self.expert_sources_error, "ask for whole passes")

    head_sources_error = "this model has no residual stream"

    def head_sources(self, text_or_ids: Prompt, layer: int) -> HeadSources:
        raise UsageError(self.head_sources_error, "ask for whole passes")

    def token_text(self, token_id: int) -> str:
        return f" w{token_id}"

    def nll(self, text_or_ids: Prompt, interventions: Sequence[Intervention] = ()) -> Floats:
        self.passes.append(("nll", tuple(interventions)))
        ids = self._ids(text_or_ids)
        logprobs = log_probabilities(self._forward(ids, interventions)[2])
        return -logprobs[np.arange(len(ids) - 1), ids[1:]].astype(np.float32)

    def kl(self, text_or_ids: Prompt, interventions: Sequence[Intervention]) -> Floats:
        ids = self._ids(text_or_ids)
        before = log_probabilities(self._forward(ids, ())[2])
        after = log_probabilities(self._forward(ids, interventions)[2])
        divergence: Floats = (np.exp(before) * (before - after)).sum(-1).astype(np.float32)
        return divergence

    def _ids(self, text_or_ids: Prompt) -> list[int]:
        if isinstance(text_or_ids, str):
            raise UsageError("this model reads ids only", "give ids")
        return [int(i) for i in text_or_ids]

    def _forward(
        self, ids: Sequence[int], interventions: Sequence[Intervention]
    ) -> tuple[NDArray[np.int64], Numbers, Numbers]:
        """Experts best first [T, L, E], their weights by expert [T, L, E], logits [T, V]."""
        layers, E = self.info.moe_layers, self.info.num_experts
        order = np.zeros((len(ids), len(layers), E), np.int64)
        weights = np.zeros((len(ids), len(layers), E))
        logit = np.zeros(len(ids))
        for t, token in enumerate(ids):
            shift = 0
            for row, layer in enumerate(layers):
                natural = [(token + layer + shift + j) % E for j in range(E)]
                order[t, row], weights[t, row] = _routed(
                    natural, self.info.top_k, layer, interventions
                )
                plain = _routed(natural, self.info.top_k, layer, ())[1]
                steered = [e for where, e in self.steering if where == layer]
                shift += bool((weights[t, row] != plain)[steered].any())
                logit[t] += (
                    weights[t, row] @ self.push[layer] * _kept("experts", layer, interventions)
                )
            for layer, added in enumerate(self.attention):
                logit[t] += added * _kept("attention", layer, interventions)
        logits = np.zeros((len(ids), self.info.vocab_size))
        logits[:, 0] = np.cumsum(logit)
        return order, weights, logits

    def _lens(self, logits: Numbers, position: int, top: int) -> LensReadout:
        """The last position, every layer reading what the model itself says."""
        logprobs = log_probabilities(logits)
        best, N = np.argsort(-logprobs, kind="stable")[:top], self.info.num_layers
        return LensReadout(
            layers=np.arange(N, dtype=np.int32),
            positions=np.array([position], np.int32),
            token_ids=np.tile(best, (1, N, 1)).astype(np.int32),
            logprobs=np.tile(logprobs[best], (1, N, 1)).astype(np.float32),
            answer_ids=best[:1].astype(np.int32),
            answer_rank=np.zeros((1, N), np.int32),
            answer_logprob=np.full((1, N), logprobs[best[0]], np.float32),
            text={int(i): f" w{i}" for i in best},
        )


def make_what_if(model: ModelInfo, *, controls: int = 3, measured: int | None = None) -> WhatIf:
    """A finding for a model of that shape: expert 0 of its first routing layer is dropped.

    measured: how many of the controls have been measured (all by default).
    """
    L, E = model.num_layers, model.num_experts
    forward = FakeForward(
        layers=L,
        experts=E,
        k=model.top_k,
        moe_layers=model.moe_layers,
        push=np.random.default_rng(0).normal(size=(L, E)),
    )
    request = WhatIfRequest(
        token_ids=(0, 1, 2, 3, 4),
        row=2,
        prompt_tokens=4,
        changes=(Drop(experts=(0,), layers=(model.moe_layers[0],)),),
        controls=controls,
    )
    findings = list(what_if(forward, request))
    return findings[-1 if measured is None else measured]


def log_probabilities(logits: Numbers) -> Numbers:
    """ln of the softmax over the last axis."""
    logprobs: Numbers = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return logprobs


def _routed(
    natural: list[int], k: int, layer: int, interventions: Sequence[Intervention]
) -> tuple[NDArray[np.int64], Numbers]:
    """Experts in the order of preference that the interventions leave, and their weights."""
    here = [change for change in interventions if change.layers is None or layer in change.layers]
    order, k = list(natural), _slots(k, here)
    for change in here:
        if isinstance(change, Deselect | Ban):
            order.sort(key=lambda e: e in change.experts)
        elif isinstance(change, Force):
            order.sort(key=lambda e: e not in change.experts)
    weights = np.zeros(len(order))
    weights[order[:k]] = 1 / k
    for change in here:
        if isinstance(change, Drop):
            whole = weights.sum()
            weights[list(change.experts)] = 0.0
            if change.renormalise and weights.sum():
                weights *= whole / weights.sum()
    return np.array(order), weights


def _slots(k: int, interventions: Sequence[Intervention]) -> int:
    return next((change.k for change in interventions if isinstance(change, TopK)), k)


def _kept(part: str, layer: int, interventions: Sequence[Intervention]) -> float:
    factors = [
        change.factor
        for change in interventions
        if isinstance(change, ScalePart) and change.part == part
        if change.layers is None or layer in change.layers
    ]
    return float(np.prod(factors))
