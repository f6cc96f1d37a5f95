"""The analyses of `interference` that change the model: numbers of experts, and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from moetui.analyses.better_with_fewer import FewerExperts, better_with_fewer
from moetui.analyses.fewer_experts import (
    Trial,
    TriedDocument,
    curve,
    numbers_of_experts,
    trials_of,
    try_document,
    unchanged,
)
from moetui.analyses.pair_additivity import (
    Pairs,
    PairSums,
    chosen_together,
    pair_additivity,
    pair_sums,
    pick_pairs,
)
from moetui.suites.documents import Documents, in_parts, some_of
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.moe_dynamics.interference_parts import (
    NUMBERS,
    PAIRS,
    Asked,
    named,
    unfit,
)
from moetui.suites.moe_dynamics.routing import CALIBRATION, ROUTING, routed
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.trace import Forward, ModelInfo

# Tokens on which it is tried out what a model allows.
_TRIED = 16
# Numbers of experts that `few` stands for, and experts a token that a plan takes a model to use.
_FEW, _PLANNED_K = 4, 8


@dataclass(frozen=True, eq=False)
class Tried:
    """Documents of one half under trials; reason: why there are not more trials. checked: how
    many were asked for the native number of experts, unchanged: how many of these it left."""

    half: Literal["evaluation", "calibration"]
    trials: tuple[Trial, ...]
    documents: tuple[TriedDocument, ...]
    reason: str | None
    checked: int
    unchanged: int


class NumbersAnalysis:
    """Fewer and more experts a token."""

    name = NUMBERS
    needs: tuple[str, ...] = (CALIBRATION, ROUTING)
    partial_type: Any = Tried

    def __init__(
        self,
        evaluation: Documents,
        calibration: Documents,
        counts: Literal["few", "all"] | tuple[int, ...],
        *,
        kl_documents: int,
        max_tokens: int,
    ) -> None:
        self._halves: tuple[tuple[Literal["evaluation", "calibration"], Documents], ...] = (
            ("evaluation", evaluation),
            ("calibration", calibration),
        )
        self._counts, self._kl, self._max_tokens = counts, kl_documents, max_tokens

    def settings(self, *, seed: int) -> Any:
        """Nothing."""
        return None

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or with one expert a token."""
        return unfit(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each; the calibration ones are tried with fewer experts only."""
        found = []
        for half, documents in self._halves:
            all_ids = [one.id for one in documents.sample(seed).documents]
            kl = set(some_of(all_ids, self._kl, seed)) if half == "evaluation" else set[str]()
            for name, some in in_parts(all_ids):
                asked = tuple(one for one in some if one in kl)
                inputs = Asked(half=half, documents=some, counts=self._counts, kl=asked)
                tokens = self._passes(half, len(some), len(asked)) * self._max_tokens
                found.append(Part(name=f"{half} {name}", inputs=inputs, tokens=tokens))
        return tuple(found)

    def _passes(self, half: str, documents: int, kl: int) -> int:
        """About how many: with `all` for eight experts a token."""
        counts = self._counts
        planned = {"few": _FEW, "all": 2 * _PLANNED_K - 1}
        numbers = planned[counts] if isinstance(counts, str) else len(counts)
        if half == "calibration":
            return documents * (numbers // 2)
        return 3 * numbers * (documents + 2 * kl)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Tried:
        """A pass for each document and trial, and two more where KL is measured."""
        given: Asked = part.inputs
        which = ROUTING if given.half == "evaluation" else CALIBRATION
        documents = named(needs, which, given.documents)
        info = model.info
        numbers = numbers_of_experts(given.counts, info.top_k, info.num_experts)
        # The same tokens in every part, so that all are tried in the same way.
        tried = np.arange(_TRIED, dtype=np.int32) % info.vocab_size
        trials, reason = trials_of(model, tried, numbers)
        if given.half == "calibration":
            trials = tuple(one for one in trials if one.own and one.experts < info.top_k)
        found, done = [], 0

        def next_pass() -> None:
            nonlocal done
            done += 1
            step(done, len(documents) * len(trials))

        for document in documents:
            kl = document.id in given.kl
            found.append(try_document(model, document, trials, kl=kl, step=next_pass))
        asked = documents[:1] if given.half == "evaluation" else []
        same = sum(unchanged(model, document) for document in asked)
        return Tried(given.half, trials, tuple(found), reason, len(asked), same)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """The curve, and inputs that do better with fewer."""
        halves = {half: [p for p in partials if p.half == half] for half, _ in self._halves}
        evaluation, calibration = (
            [one for partial in halves[half] for one in partial.documents]
            for half in ("evaluation", "calibration")
        )
        trials: tuple[Trial, ...] = halves["evaluation"][0].trials
        fewer: tuple[Trial, ...] = halves["calibration"][0].trials
        reason = halves["evaluation"][0].reason
        if not trials:
            return Outcome(None, reason)
        rows = [(row, trials.index(one)) for row, one in enumerate(fewer)]
        found = FewerExperts(
            native=info.top_k,
            checked=sum(partial.checked for partial in partials),
            unchanged=sum(partial.unchanged for partial in partials),
            points=curve(evaluation, trials, seed=seed),
            incomplete=reason,
            better=better_with_fewer(calibration, evaluation, fewer, rows, seed=seed),
        )
        return Outcome(found)


@dataclass(frozen=True, eq=False)
class PairsRead:
    """Pairs of a layer, and what dropping them cost the documents of a part."""

    pairs: Pairs
    sums: tuple[PairSums, ...]


class PairsAnalysis:
    """Experts dropped alone and in pairs."""

    name = PAIRS
    needs: tuple[str, ...] = (CALIBRATION, ROUTING)
    partial_type: Any = PairsRead

    def __init__(
        self,
        documents: Documents,
        layers: LayersAsked,
        *,
        pairs: int,
        random: int,
        limit: int,
        max_tokens: int,
    ) -> None:
        self._documents, self._layers = documents, layers
        self._pairs, self._random = pairs, random
        self._limit, self._max_tokens = limit, max_tokens

    def settings(self, *, seed: int) -> Any:
        """Nothing."""
        return None

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or with one expert a token."""
        return unfit(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each, tokens as if no two pairs shared an expert."""
        ids = [one.id for one in self._documents.sample(seed).documents]
        passes = 3 * (self._pairs + self._random)
        return tuple(
            Part(
                name=name,
                inputs=Asked(
                    half="evaluation",
                    documents=some,
                    layers=self._layers,
                    pairs=self._pairs,
                    random=self._random,
                ),
                tokens=passes * len(some) * self._max_tokens,
            )
            for name, some in in_parts(some_of(ids, self._limit, seed))
        )

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> PairsRead:
        """A pass for each document and expert, and for each document and pair."""
        given: Asked = part.inputs
        assert given.layers is not None
        layers = routing_layers(given.layers, model.info)
        layer = layers[len(layers) // 2]
        place = model.info.moe_layers.index(layer)
        together = chosen_together(routed(needs[CALIBRATION]), place, model.info.num_experts)
        rng = np.random.default_rng([seed, layer])
        pairs = pick_pairs(together, layer, pairs=given.pairs, random=given.random, rng=rng)
        done = 0

        def next_pass() -> None:
            nonlocal done
            done += 1
            step(done, len(given.documents) * (len(pairs.experts) + len(pairs.all)))

        documents = named(needs, ROUTING, given.documents)
        return PairsRead(pairs, tuple(pair_sums(model, documents, pairs, place, step=next_pass)))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """By pair."""
        sums = [one for partial in partials for one in partial.sums]
        if not self._pairs + self._random:
            return Outcome(None, "no pairs were asked for")
        if not sums or not partials[0].pairs.all:
            return Outcome(None, "no two experts are chosen together")
        return Outcome(pair_additivity(sums, partials[0].pairs, seed=seed))
