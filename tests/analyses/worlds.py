"""Routing whose cause is known: by chance, by the token, by what attention added, by habit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

E, K, H, V = 8, 2, 12, 40


@dataclass
class Document:
    """ids [T]; embedding, attention [T, H]; experts [T, k], best first."""

    ids: np.ndarray
    embedding: np.ndarray
    attention: np.ndarray
    experts: np.ndarray


def world(kind, documents, *, tokens=30, seed=0, first=0):
    """Documents of one world; `first`: number of the first document, so that halves differ."""
    fixed = np.random.default_rng([seed, 0])
    table, router = fixed.normal(size=(V, H)), fixed.normal(size=(H, E))
    popularity = fixed.normal(size=E)
    return [
        _document(kind, np.random.default_rng([seed, 1, first + d]), tokens, table, router,
                  popularity)
        for d in range(documents)
    ]  # fmt: skip


def _document(kind, rng, T, table, router, popularity):
    ids = rng.integers(0, V, T)
    embedding, attention = table[ids], rng.normal(size=(T, H))
    noisy = rng.random((T, 1)) < 0.03  # by chance after all
    logits = {
        "chance": popularity + rng.gumbel(size=(T, E)),
        "token": embedding @ router,
        "attention": attention @ router,
        "habit": _habit(rng, T),
    }[kind]
    logits = np.where(noisy, rng.gumbel(size=(T, E)), logits)
    experts = np.argsort(-logits, axis=1, kind="stable")[:, :K]
    return Document(ids, embedding, attention, experts.astype(np.int16))


def _habit(rng, T):
    """Every token keeps the scores of the one before, but for one time in five."""
    logits = rng.gumbel(size=(T, E))
    for t in range(1, T):
        if rng.random() > 0.2:
            logits[t] = logits[t - 1]
    return logits


def seldom_seen(kind, documents, *, tokens=30, seed=0, first=0, noise=1.0):
    """Documents whose tokens are many and mostly rare, so that a table of some documents does not
    know one in ten of others. Experts follow from the token, and from nothing else: `features` is
    a function of the token too ("token"), or holds besides what is not in the token and counts
    for nothing ("token and chance"). With "token and place", what is not in the token counts as
    well; with "token and document", what all tokens of a document have in common does, in "token in
    document" as far as the token takes it up, and features hold that with noise."""
    ids = 400
    fixed = np.random.default_rng([seed, 7])
    table, router = fixed.normal(size=(ids, H)), fixed.normal(size=(H, E))
    often = 1 / np.arange(1, ids + 1)
    found = []
    for d in range(documents):
        rng = np.random.default_rng([seed, 11, first + d])
        drawn = rng.choice(ids, tokens, p=often / often.sum())
        place = rng.normal(size=(tokens, H))
        logits = table[drawn] @ router + noise * rng.gumbel(size=(tokens, E))
        if kind in ("token and document", "token in document"):
            common = np.tile(rng.normal(size=H), (tokens, 1))
            if kind == "token in document":
                common = common * table[drawn]
            place = common + 0.3 * place
            logits = logits + common @ router
        if kind == "token and place":
            logits = logits + place @ router
        features = table[drawn] if kind == "token" else table[drawn] + place
        experts = np.argsort(-logits, axis=1, kind="stable")[:, :K].astype(np.int16)
        found.append(Document(drawn, table[drawn], features, experts))
    return found
