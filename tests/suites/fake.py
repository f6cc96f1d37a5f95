"""A model without mlx: tokens are words with their leading space, routing follows from ids."""

import re
from dataclasses import replace

import numpy as np

from moetui.errors import ModelError
from moetui.trace import ExpertSources, HeadSources, RouterSources
from tests.builders import make_model_info, make_trace

PARTS = ("embedding", "attention", "routed experts")


class FakeModel:
    """A Forward whose residual stream holds the router's logits themselves: its first E numbers
    are what tells experts apart, the last one reaches all of them alike, and there is no norm.

    `attention` scales what attention adds, `embedding` what the token itself does; `common` is
    added to every expert. Attention follows from the whole text so far; all of it is added in
    the layer of the router, three quarters of it by head 0 and the rest by head 1; the first
    layer's is no attention of heads. The experts add nothing. `blind`: so many directions of the
    stream no router reads, and nothing is added to them.
    """

    routes_error = expert_sources_error = head_sources_error = None

    def __init__(
        self,
        name="fake",
        *,
        attention=1.0,
        embedding=1.0,
        common=0.0,
        experts=8,
        layers=4,
        blind=0,
        **info,
    ):
        fields = {"num_layers": layers, "num_experts": experts, "top_k": 2, "part_names": PARTS}
        fields["hidden_size"] = experts + 1 + blind
        self.blind = blind
        self.info = make_model_info(name=name, **{**fields, **info})
        self.vocabulary = {}
        self.attention, self.embedding, self.common = attention, embedding, common
        self.traced = []

    def tokenize(self, text):
        words = re.findall(r"\s?\w+|\s?\S|\s", text)
        ids = [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words]
        return np.array(ids, np.int32)

    def token_text(self, token_id):
        return {number: word for word, number in self.vocabulary.items()}[token_id]

    def trace(
        self,
        text_or_ids,
        *,
        lens=5,
        residuals=True,
        streams=False,
        attention=False,
        expert_outputs=False,
        sources=(),
        interventions=(),
    ):
        ids = self.tokenize(text_or_ids) if isinstance(text_or_ids, str) else text_or_ids
        self.traced.append(ids)
        texts = {number: word for word, number in self.vocabulary.items()}
        tokens = [texts[int(i)] for i in ids]
        L, E = len(self.info.moe_layers), self.info.num_experts
        if not L:
            return replace(make_trace(len(ids), moe_layers=(), tokens=tokens), model=self.info)
        stream = np.stack([self._parts(ids[: t + 1], L, E) for t in range(len(ids))])
        parts = logits_of(stream)
        logits = logits_of(stream.sum(axis=2))
        order = np.argsort(-logits, axis=-1, kind="stable")[..., :2]
        seed_parts = parts[:, :, :2].copy()
        if self.info.moe_layers[0] == 0:
            seed_parts[:, 0, 1] = 0  # nothing has been added when the first layer begins
        return replace(
            make_trace(len(ids), L, E, 2, tokens=tokens),
            model=self.info,
            token_ids=np.asarray(ids, np.int32),
            router_logits=logits.astype(np.float32),
            selection_scores=None,
            expert_ids=order.astype(np.int16),
            expert_weights=np.full(order.shape, 0.5, np.float32),
            router_parts=parts.astype(np.float32) if residuals else None,
            seed_parts=seed_parts.astype(np.float32) if residuals else None,
            sources=self._sources(stream, sources) if sources else None,
        )

    def next_logits(self, text_or_ids):
        ids = self.tokenize(text_or_ids) if isinstance(text_or_ids, str) else text_or_ids
        return make_trace(len(ids), len(self.info.moe_layers), self.info.num_experts, 2).logits

    def expert_sources(self, text_or_ids, layer):
        trace = self.trace(text_or_ids)
        self.traced.pop()  # other analyses' passes are counted
        row = self.info.moe_layers.index(layer)
        T, E = trace.router_logits[:, row].shape
        return ExpertSources(
            layer=layer,
            layers=trace.layers[:row],
            router_logits=trace.router_logits[:, row],
            expert_ids=trace.expert_ids[:, :row],
            logits=np.zeros((T, row, 2, E), np.float32),
            routed=np.zeros((T, row, E), np.float32),
        )

    def head_sources(self, text_or_ids, layer):
        trace = self.trace(text_or_ids)
        self.traced.pop()
        row = self.info.moe_layers.index(layer)
        T, E = trace.router_logits[:, row].shape
        attention = np.zeros((T, row + 1, E), np.float32)
        attention[:, row] = trace.router_parts[:, row, 1]
        logits = np.zeros((T, row + 1, 3, E), np.float32)
        heads = np.array([[0], [0.75], [0.25]] if row else [[1], [0], [0]], np.float32)
        logits[:, row] = attention[:, row, None] * heads
        return HeadSources(
            layer=layer,
            layers=trace.layers[: row + 1],
            heads=np.array([0] + [2] * row, np.int32),
            router_logits=trace.router_logits[:, row],
            logits=logits,
            attention=attention,
        )

    def routes(self, layer, streams):
        order = np.argsort(-logits_of(streams[:, self.blind :]), axis=-1, kind="stable")[..., :2]
        return np.sort(order, axis=-1).astype(np.int16)

    def _sources(self, stream, layers):
        at = [self.info.moe_layers.index(layer) for layer in layers]
        here = stream[:, at]
        names = [("embedding", None), *(("attention", layer) for layer in self.info.moe_layers)]
        by_source = np.zeros((*here.shape[:2], len(names), self.info.num_experts))
        by_source[:, :, 0] = logits_of(here[:, :, 0])
        for row, index in enumerate(at):
            by_source[:, row, 1 + index] = logits_of(here[:, row, 1])
        return RouterSources(
            layers=np.array(layers, np.int32),
            at_router=self._wide(here.sum(axis=2)),
            parts=self._wide(here),
            names=tuple(names),
            logits=by_source.astype(np.float32),
        )

    def _wide(self, stream):
        blind = np.zeros((*stream.shape[:-1], self.blind))
        return np.concatenate([blind, stream], axis=-1).astype(np.float32)

    def _parts(self, prefix, L, E):
        """[L, 3, E + 1]: embedding, attention, experts."""
        token, whole = int(prefix[-1]), int(sum((i + 1) * int(t) for i, t in enumerate(prefix)))
        embed = np.random.default_rng(token).normal(size=(1, E)) * np.ones((L, 1)) * self.embedding
        rng = np.random.default_rng(1000 + whole)
        attention = rng.normal(size=(L, E)) * self.attention
        parts = np.zeros((L, 3, E + 1))
        parts[:, 0, :E], parts[:, 1, :E] = embed, attention
        parts[:, 1, E] = self.common * (1 + rng.random())
        return parts


def logits_of(stream):
    """[..., E] from [..., E + 1]."""
    return stream[..., :-1] + stream[..., -1:]


class Opened:
    """A source of the given models; others do not exist. Exceptions are raised when opened."""

    def __init__(self, **models):
        self._models = models

    def identity(self, ref):
        return f"identity of {ref.name}"

    def nulls(self, name, *, seed):
        return ()

    def open(self, ref):
        if ref.name not in self._models:
            raise ModelError(f"no model {ref.name!r}", "give a folder or org/name")
        found = self._models[ref.name]
        if isinstance(found, Exception):
            raise found
        return found

    def free(self):
        pass
