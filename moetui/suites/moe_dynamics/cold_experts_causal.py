"""The analyses of `cold_experts` that change the model's forward, or search for inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec
import numpy as np

from moetui.analyses.cold_load import Loads, loads
from moetui.analyses.expert_ablation import expert_ablations
from moetui.analyses.expert_removal import (
    AblatedDocuments,
    LayerAblations,
    Mode,
    ablate,
    planned_ablations,
    refused,
    whole,
)
from moetui.analyses.pruning_plan import (
    PrunedDocuments,
    PruneMode,
    prune,
    pruning_plans,
    unpruned,
)
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.waking_tokens import WakingTokens, tokens_to_try, waking_tokens
from moetui.errors import UsageError
from moetui.suites.documents import Documents, in_parts
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.moe_dynamics.cold_experts_analyses import SCORES
from moetui.suites.moe_dynamics.routing import CALIBRATION, ROUTING, routed
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

# Experts that no document uses are searched for in all layers, up to so many.
_UNUSED = 64


class AblationChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which experts are removed, and how."""

    layers: LayersAsked
    coldest: int
    hottest: int
    controls: int
    modes: tuple[Mode, ...]
    kl_documents: int
    margin: float

    @property
    def experts(self) -> int | None:
        """At most how many removals a document sees, None where nobody can tell beforehand."""
        layers = _how_many(self.layers)
        if layers is None:
            return None
        # Neighbours in load of the coldest are each other, and the random ones are shared.
        each = self.coldest + self.hottest + 3 * self.controls + 1
        return layers * each * len(self.modes)


class DocumentRange(msgspec.Struct, frozen=True, kw_only=True):
    """Documents start:stop of those that were routed; with_kl: those of them KL is measured on."""

    start: int
    stop: int
    with_kl: tuple[int, ...]
    choice: AblationChoice


class AblationAnalysis:
    """Experts removed one at a time, beside control experts."""

    name = "expert_ablations"
    needs: tuple[str, ...] = (CALIBRATION, ROUTING)
    partial_type: Any = AblatedDocuments

    def __init__(self, evaluation: Documents, choice: AblationChoice, *, max_tokens: int) -> None:
        self._evaluation, self._choice, self._max_tokens = evaluation, choice, max_tokens

    def settings(self, *, seed: int) -> Any:
        """The margin of equivalence."""
        return self._choice.margin

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        size = len(self._evaluation.sample(seed).documents)
        drawn = np.random.default_rng(seed).permutation(size)[: self._choice.kl_documents]
        return tuple(self._part(name, rows, set(drawn.tolist())) for name, rows in _ranges(size))

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> AblatedDocuments:
        """Every removal on every document that uses the expert."""
        given: DocumentRange = part.inputs
        documents = routed(needs[ROUTING])[given.start : given.stop]
        layers = _planned(needs, model.info, given.choice, seed=seed)
        asked = [at in given.with_kl for at in range(given.start, given.stop)]
        try:
            return ablate(
                model,
                documents,
                layers,
                given.choice.modes,
                with_kl=asked,
                step=_counting(step, len(documents)),
            )
        except UsageError as error:
            return refused(f"{error.message} ({error.hint}); try other `modes`")

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Costs with intervals over documents."""
        errors = [partial.error for partial in partials if partial.error is not None]
        if errors or not partials:
            return Outcome(None, errors[0] if errors else "no document was read")
        return Outcome(expert_ablations(whole(partials), margin=self._choice.margin, seed=seed))

    def _part(self, name: str, rows: tuple[int, ...], drawn: set[int]) -> Part:
        experts, with_kl = self._choice.experts, tuple(row for row in rows if row in drawn)
        passes = len(rows) + 2 * len(with_kl)
        return Part(
            name=name,
            inputs=DocumentRange(
                start=rows[0], stop=rows[-1] + 1, with_kl=with_kl, choice=self._choice
            ),
            tokens=None if experts is None else experts * passes * self._max_tokens,
        )


class PruningInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Documents start:stop of those that were routed, and how experts are removed."""

    start: int
    stop: int
    mode: PruneMode


class PruningAnalysis:
    """Every plan measured with all of its experts gone at once."""

    name = "pruning_plans"
    needs: tuple[str, ...] = (SCORES, ROUTING)
    partial_type: Any = PrunedDocuments

    def __init__(
        self, evaluation: Documents, *, mode: PruneMode, margin: float, passes: int, max_tokens: int
    ) -> None:
        self._evaluation, self._mode, self._margin = evaluation, mode, margin
        self._passes, self._max_tokens = passes, max_tokens

    def settings(self, *, seed: int) -> Any:
        """The margin of equivalence."""
        return self._margin

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        size = len(self._evaluation.sample(seed).documents)
        return tuple(
            Part(
                name=name,
                inputs=PruningInputs(start=rows[0], stop=rows[-1] + 1, mode=self._mode),
                tokens=self._passes * len(rows) * self._max_tokens,
            )
            for name, rows in _ranges(size)
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> PrunedDocuments:
        """One pass a plan, and a control of it, and a document."""
        given: PruningInputs = part.inputs
        documents = routed(needs[ROUTING])[given.start : given.stop]
        (scored,) = needs[SCORES]
        steps = _counting(step, len(documents))
        try:
            return prune(model, documents, scored.planned, given.mode, step=steps)
        except UsageError as error:
            return unpruned(f"{error.message} ({error.hint}); try another `prune_mode`", given.mode)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Costs with intervals over documents, and what is saved."""
        errors = [partial.error for partial in partials if partial.error is not None]
        if errors or not partials:
            return Outcome(None, errors[0] if errors else "no document was read")
        return Outcome(pruning_plans(partials, info, margin=self._margin, seed=seed))


class WakingInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to wake (as for ablations), and where tokens are tried."""

    layers: LayersAsked
    coldest: int
    tokens: int
    contexts: int
    context_tokens: int
    checks: int


class WakingAnalysis:
    """Tokens that wake the coldest experts, found in a few contexts and tried in others."""

    name = "waking_tokens"
    needs: tuple[str, ...] = (CALIBRATION, ROUTING)
    partial_type: Any = WakingTokens | None

    def __init__(self, inputs: WakingInputs) -> None:
        self._inputs = inputs

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the part."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One; of a smaller vocabulary less is tried."""
        given, layers = self._inputs, _how_many(self._inputs.layers)
        if layers is None:
            return (Part(name="scan", inputs=given),)
        tries = given.tokens * given.contexts + layers * given.coldest * given.checks
        return (Part(name="scan", inputs=given, tokens=tries * (given.context_tokens + 1)),)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Any:
        """The search, and the trial of what it found."""
        given: WakingInputs = part.inputs
        info, calibration = model.info, routed(needs[CALIBRATION])
        evaluation = routed(needs[ROUTING])
        contexts = _starts(calibration, given.context_tokens, given.contexts, seed)
        if not contexts:
            return None
        load, other = loads(calibration, info), loads(evaluation, info)
        targets = _to_wake(load, other, info, given)
        known = _seen(calibration, info, [expert for expert, _, _ in targets])
        tokens = tokens_to_try(info.vocab_size, known, given.tokens, seed=seed)
        return waking_tokens(
            model,
            targets,
            contexts,
            _starts(evaluation, given.context_tokens, given.checks, seed),
            tokens,
            step=_counting(step, len(tokens)),
        )

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """What the part found."""
        few = f"no document has the {self._inputs.context_tokens} tokens of a context"
        return Outcome(partials[0], few if partials[0] is None else None)


def _how_many(layers: LayersAsked) -> int | None:
    """Layers at most, None where only the model tells."""
    if "all" in layers:
        return None
    return 1 if isinstance(layers, str) else len(layers)


def _ranges(size: int) -> list[tuple[str, tuple[int, ...]]]:
    """Name and rows of every part of so many documents."""
    return list(in_parts(range(size)))


def _counting(step: Step, total: int) -> Callable[[], None]:
    """`step` of one more text done."""
    done = count(1)
    return lambda: step(next(done), total)


def _planned(
    needs: Needs, info: ModelInfo, choice: AblationChoice, *, seed: int
) -> tuple[LayerAblations, ...]:
    return planned_ablations(
        loads(routed(needs[CALIBRATION]), info),
        info,
        routing_layers(choice.layers, info),
        coldest=choice.coldest,
        hottest=choice.hottest,
        wanted=choice.controls,
        seed=seed,
    )


def _to_wake(
    load: Loads, other: Loads, info: ModelInfo, given: WakingInputs
) -> list[tuple[tuple[int, int], float, bool]]:
    """The coldest experts of the layers asked about, then those of any that no document uses."""
    hits = load.counts.sum(axis=0) + other.counts.sum(axis=0)
    chosen: dict[tuple[int, int], None] = {}
    for layer in routing_layers(given.layers, info):
        row = info.moe_layers.index(layer)
        order = np.argsort(load.share(row), kind="stable").tolist()
        chosen |= dict.fromkeys((row, expert) for expert in order[: given.coldest])
    unused = [
        (row, expert)
        for row, E in enumerate(load.experts)
        for expert in range(E)
        if not hits[row, expert]
    ]
    chosen |= dict.fromkeys(unused[:_UNUSED])
    return [
        ((info.moe_layers[row], e), float(load.share(row)[e]), bool(hits[row, e]))
        for row, e in chosen
    ]


def _seen(
    documents: Sequence[RoutedDocument], info: ModelInfo, experts: Sequence[tuple[int, int]]
) -> list[int]:
    """Tokens at which any of the experts was seen, most often first."""
    found: list[int] = []
    for layer, expert in experts:
        row = info.moe_layers.index(layer)
        for one in documents:
            found += one.ids[(one.experts[:, row] == expert).any(axis=-1)].tolist()
    ids, counts = np.unique(np.array(found, np.int64), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [int(token) for token in ids[order]]


def _starts(documents: Sequence[RoutedDocument], tokens: int, limit: int, seed: int) -> list[Any]:
    """The first tokens of some documents at random, of those that have as many."""
    long = [one for one in documents if len(one.ids) >= tokens]
    drawn = np.random.default_rng(seed).permutation(len(long))[:limit]
    return [long[at].ids[:tokens] for at in np.sort(drawn)]
