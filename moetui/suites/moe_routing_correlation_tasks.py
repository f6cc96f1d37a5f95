"""The analyses of `moe_routing_correlation` that rest on arithmetic prompts: probes of the
operation, accuracy of the answers, and a virtual expert router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from moetui.analyses.probe_features import (
    DEPTHS,
    ProbeFeatures,
    joined_features,
    layer_at,
    read_features,
    token_counts,
)
from moetui.analyses.probes import Probes, probes
from moetui.analyses.task_accuracy import (
    MAX_TOKENS,
    SEED_TOKENS,
    Answered,
    TaskAccuracy,
    answered,
    task_accuracy,
)
from moetui.analyses.task_prompts import SEED_PROMPTS, TaskPrompt, crossed_prompts, problems
from moetui.analyses.virtual_experts import VirtualExperts, virtual_experts
from moetui.analyses.virtual_router import DEPTH
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.results import Measure
from moetui.trace import Forward, ModelInfo
from moetui.trace.types import Floats

# Problems of the larger set of the accuracy in one part.
PROBLEMS = 25
# About how long these prompts are.
TOKENS = 8


class PromptInputs(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the probes: prompts of the seed or of the larger set, read at depths."""

    of_seed: bool
    items: tuple[TaskPrompt, ...]
    depths: tuple[float, ...]


class PromptFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """What a part of the probes leaves."""

    of_seed: bool
    items: tuple[TaskPrompt, ...]
    features: ProbeFeatures


class ProbeAnalysis:
    """`probes`: see `moetui.analyses.probes`.

    pairs: pairs of operands, each asked in 4 operations and 7 templates, 1 to 30. depths: at
    which layers, 0 to 1. seed_items: the seed's prompts.
    """

    name = "probes"
    needs: tuple[str, ...] = ()
    partial_type = PromptFeatures

    def __init__(
        self,
        *,
        pairs: int = 20,
        depths: tuple[float, ...] = DEPTHS,
        seed_items: tuple[TaskPrompt, ...] = SEED_PROMPTS,
    ) -> None:
        self._pairs, self._depths, self._seed_items = pairs, depths, seed_items

    def settings(self, *, seed: int) -> tuple[float, ...]:
        """The depths, which name the layers in the result."""
        return self._depths

    def unfit(self, info: ModelInfo) -> str | None:
        """Every model has a residual stream; dense ones are not asked for their routing."""
        return None

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """The seed's prompts, then the larger set, a template at a time."""
        by_template: dict[str, list[TaskPrompt]] = {}
        for item in crossed_prompts(self._pairs, seed=seed):
            by_template.setdefault(item.template, []).append(item)
        larger = (self._part(name, tuple(items)) for name, items in by_template.items())
        return (self._part("seed", self._seed_items, of_seed=True), *larger)

    def _part(self, name: str, items: tuple[TaskPrompt, ...], *, of_seed: bool = False) -> Part:
        inputs = PromptInputs(of_seed=of_seed, items=items, depths=self._depths)
        return Part(name=name, inputs=inputs, tokens=TOKENS * len(items))

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> PromptFeatures:
        """One pass a prompt."""
        asked: PromptInputs = part.inputs
        texts = [item.prompt for item in asked.items]
        features = read_features(model, texts, depths=asked.depths, step=step)
        return PromptFeatures(of_seed=asked.of_seed, items=asked.items, features=features)

    def reduce(self, info: ModelInfo, partials: Sequence[PromptFeatures], *, seed: int) -> Outcome:
        """All fits, intervals and tests."""
        of_seed, larger = partials[0], partials[1:]
        found = probes(
            info,
            of_seed.items,
            of_seed.features,
            [item for partial in larger for item in partial.items],
            joined_features([partial.features for partial in larger]),
            depths=self._depths,
            seed=seed,
        )
        return Outcome(found, found.reason)


class AnsweredItems(msgspec.Struct, frozen=True, kw_only=True):
    """What a part of the accuracy leaves."""

    of_seed: bool
    items: tuple[Answered, ...]


class AccuracyInputs(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the accuracy; the answers to the seed's prompts are generated to the end."""

    of_seed: bool
    items: tuple[TaskPrompt, ...]
    max_tokens: int


class AccuracyAnalysis:
    """`accuracy`: see `moetui.analyses.task_accuracy`. per_task: problems of each operation, 1 to
    100."""

    name = "accuracy"
    needs: tuple[str, ...] = ()
    partial_type = AnsweredItems

    def __init__(
        self, *, per_task: int = 50, seed_items: tuple[TaskPrompt, ...] = SEED_PROMPTS
    ) -> None:
        self._per_task, self._seed_items = per_task, seed_items

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the parts."""

    def unfit(self, info: ModelInfo) -> str | None:
        """Every model writes."""
        return None

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """The seed's prompts, then the larger set, 25 problems at a time."""
        asked = problems(self._per_task, seed=seed)
        larger = [
            (f"problems {start + 1}", asked[start : start + PROBLEMS])
            for start in range(0, len(asked), PROBLEMS)
        ]
        first = AccuracyInputs(of_seed=True, items=self._seed_items, max_tokens=SEED_TOKENS)
        tokens = len(self._seed_items) * (TOKENS + SEED_TOKENS)
        return (
            Part(name="seed", inputs=first, tokens=tokens),
            *(
                Part(
                    name=name,
                    inputs=AccuracyInputs(of_seed=False, items=items, max_tokens=MAX_TOKENS),
                    tokens=TOKENS * len(items),
                )
                for name, items in larger
            ),
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> AnsweredItems:
        """One greedy generation a problem."""
        asked: AccuracyInputs = part.inputs
        said = []
        for done, item in enumerate(asked.items, 1):
            said.append(
                answered(model, item, max_tokens=asked.max_tokens, to_the_end=asked.of_seed)
            )
            step(done, len(asked.items))
        return AnsweredItems(of_seed=asked.of_seed, items=tuple(said))

    def reduce(self, info: ModelInfo, partials: Sequence[AnsweredItems], *, seed: int) -> Outcome:
        """Shares, intervals and chance."""
        of_seed = [item for partial in partials if partial.of_seed for item in partial.items]
        larger = [item for partial in partials if not partial.of_seed for item in partial.items]
        found = task_accuracy(of_seed, larger, seed=seed)
        return Outcome(found, found.reason)


@dataclass(frozen=True, eq=False, kw_only=True)
class RouteFeatures:
    """What the virtual experts take from the probes: of n prompts of the larger set the residual
    stream at one layer, hidden float32 [n, H], and token counts, float32 [n, ids]."""

    items: tuple[TaskPrompt, ...]
    layer: int
    hidden: Floats
    tokens: Floats


class RouteInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The one part of the virtual experts."""

    depth: float


class VirtualExpertAnalysis:
    """`virtual_experts`: see `moetui.analyses.virtual_experts`. depth: of the layer that is read;
    has to be one of those of the probes, whose passes are used."""

    name = "virtual_experts"
    needs: tuple[str, ...] = (ProbeAnalysis.name,)
    partial_type = RouteFeatures

    def __init__(self, *, depth: float = DEPTH) -> None:
        self._depth = depth

    def settings(self, *, seed: int) -> float:
        """The depth."""
        return self._depth

    def unfit(self, info: ModelInfo) -> str | None:
        """Every model has a residual stream."""
        return None

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One; it takes no pass of its own."""
        return (Part(name="routes", inputs=RouteInputs(depth=self._depth), tokens=0),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> RouteFeatures:
        """The larger set of the probes."""
        larger: list[PromptFeatures] = [p for p in needs[ProbeAnalysis.name] if not p.of_seed]
        features = joined_features([partial.features for partial in larger])
        layer = layer_at(part.inputs.depth, model.info.num_layers)
        return RouteFeatures(
            items=tuple(item for partial in larger for item in partial.items),
            layer=layer,
            hidden=features.residual[:, features.layers.tolist().index(layer)],
            tokens=token_counts(features),
        )

    def reduce(self, info: ModelInfo, partials: Sequence[RouteFeatures], *, seed: int) -> Outcome:
        """Training, routes, intervals and tests."""
        (left,) = partials
        found = virtual_experts(
            left.items, left.hidden, left.tokens, depth=self._depth, layer=left.layer, seed=seed
        )
        return Outcome(found, found.reason)


def probe_measures(model: str, found: Probes) -> tuple[Measure, ...]:
    """The headline numbers of the probes; units: accuracy in each wording."""
    seeds = [
        Measure(
            model=model,
            label="seed",
            name=f"probe of the operation, {probe.depth:.0%} depth",
            statistic=probe.accuracy,
            units=tuple(float(a == b) for a, b in zip(probe.tasks, probe.predicted, strict=True)),
        )
        for probe in found.seed
    ]
    corrected = [
        Measure(
            model=model,
            label="corrected",
            name=f"probe of {probe.features}, {probe.depth:.0%} depth, unseen words and numbers",
            statistic=probe.unseen,
            units=tuple(score.right / score.n for score in probe.by_wording),
        )
        for probe in found.probes
        if probe.depth is not None
    ]
    return (*seeds, *corrected)


def accuracy_measures(model: str, found: TaskAccuracy) -> tuple[Measure, ...]:
    """The headline numbers of the accuracy; units: right or wrong, problem by problem."""
    return (
        Measure(
            model=model,
            label="seed",
            name="task accuracy, the seed's prompts",
            statistic=found.seed,
            units=tuple(float(item.contained) for item in found.seed_items),
        ),
        Measure(
            model=model,
            label="corrected",
            name="task accuracy, whole numbers",
            statistic=found.accuracy,
            units=tuple(float(item.exact) for item in found.items),
        ),
    )


def virtual_expert_measures(model: str, found: VirtualExperts) -> tuple[Measure, ...]:
    """The headline number of the virtual expert router."""
    return (
        Measure(
            model=model,
            label="corrected",
            name="virtual expert router, unseen words and numbers",
            statistic=found.accuracy,
        ),
    )
