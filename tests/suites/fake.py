"""A model without mlx: tokens are words with their leading space, routing follows from ids."""

import re
from dataclasses import replace

import numpy as np

from moetui.errors import ModelError
from tests.builders import make_model_info, make_trace

PARTS = ("embedding", "attention", "routed experts")


class FakeModel:
    """A Tracer. `attention` scales what attention adds; `common` is added to every expert."""

    def __init__(self, name="fake", *, attention=1.0, common=0.0, experts=8, layers=4, **info):
        fields = {"num_layers": layers, "num_experts": experts, "top_k": 2, "part_names": PARTS}
        self.info = make_model_info(name=name, **{**fields, **info})
        self.vocabulary = {}
        self.attention, self.common = attention, common
        self.traced = []

    def tokenize(self, text):
        words = re.findall(r"\s?\w+|\s?\S|\s", text)
        ids = [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words]
        return np.array(ids, np.int32)

    def trace(self, text_or_ids, *, lens=5, residuals=True):
        ids = self.tokenize(text_or_ids) if isinstance(text_or_ids, str) else text_or_ids
        self.traced.append(ids)
        texts = {number: word for word, number in self.vocabulary.items()}
        tokens = [texts[int(i)] for i in ids]
        L, E = len(self.info.moe_layers), self.info.num_experts
        if not L:
            return replace(make_trace(len(ids), moe_layers=(), tokens=tokens), model=self.info)
        parts = np.stack([self._parts(ids[: t + 1], L, E) for t in range(len(ids))])
        logits = parts.sum(axis=2)
        order = np.argsort(-logits, axis=-1, kind="stable")[..., :2]
        return replace(
            make_trace(len(ids), L, E, 2, tokens=tokens),
            model=self.info,
            token_ids=np.asarray(ids, np.int32),
            router_logits=logits.astype(np.float32),
            selection_scores=None,
            expert_ids=order.astype(np.int16),
            expert_weights=np.full(order.shape, 0.5, np.float32),
            router_parts=parts.astype(np.float32) if residuals else None,
            seed_parts=parts[:, :, :2].astype(np.float32) if residuals else None,
        )

    def _parts(self, prefix, L, E):
        token, whole = int(prefix[-1]), int(sum((i + 1) * int(t) for i, t in enumerate(prefix)))
        embed = np.random.default_rng(token).normal(size=(1, E)) * np.ones((L, 1))
        rng = np.random.default_rng(1000 + whole)
        attention = rng.normal(size=(L, E)) * self.attention + self.common * (1 + rng.random())
        return np.stack([embed, attention, np.zeros((L, E))], axis=1)


def opener(**models):
    """Opens the given models; others do not exist."""

    def open_model(name):
        if name not in models:
            raise ModelError(f"no model {name!r}", "give a folder or org/name")
        found = models[name]
        if isinstance(found, Exception):
            raise found
        return found

    return open_model
