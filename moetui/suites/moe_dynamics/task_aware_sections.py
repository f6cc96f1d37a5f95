"""What the report shows of the study `task_aware`."""

from __future__ import annotations

from collections.abc import Iterator

from moetui.analyses.offload import OffloadPlan
from moetui.analyses.seed_prediction import SeedTask
from moetui.analyses.task_aware import BESIDE, RecallAt, TaskAware, TaskLayer
from moetui.stats import Statistic
from moetui.suites.moe_dynamics.attention_routing_sections import seed_table
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Bars, Section, Table, Value, estimate

_MEGA = 1e6


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """Predictors, what they save, and the published scores; none where none were made."""
    found = [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, TaskAware)
    ]
    return (*_predictors(found), *_plans(found), *_seed(result))


def _predictors(found: list[tuple[str, TaskAware]]) -> Iterator[Section]:
    if found:
        first = found[0][1]
        yield Section(
            heading="Which experts later layers will need",
            text=(
                f"{first.definition}.",
                f"{first.null[0].upper()}{first.null[1:]}.",
                *(_size(model, one) for model, one in found),
            ),
            tables=tuple(
                table
                for model, one in found
                for table in (_by_size(model, one), _gains(model, one), _by_layer(model, one))
            ),
            bars=tuple(_bars(model, one) for model, one in found),
        )


def _size(model: str, found: TaskAware) -> str:
    missing = "" if found.gate_missing is None else f" No early gates: {found.gate_missing}."
    return (
        f"{model}: the probe reads what leaves layer {found.probe_layer}; fitted to "
        f"{found.fit_tokens:,} tokens of {found.fit_documents} documents, judged on "
        f"{found.tokens:,} of {found.documents} others; the table knows {found.coverage:.0%} of "
        f"these, and {found.movable:.0%} have an equal among them; "
        f"{found.k} experts drawn at random recall {found.chance:.3f}.{missing}"
    )


def _layers(found: TaskAware) -> str:
    return ", ".join(str(one.layer) for one in found.layers)


def _by_size(model: str, found: TaskAware) -> Table:
    sizes = [one.m for one in found.mean.predictors[0].sizes]
    return Table(
        title=f"{model}: recall, mean over layers {_layers(found)}",
        columns=("predictor", *(f"m = {m}" for m in sizes)),
        rows=tuple(
            (one.predictor, *(estimate(at.recall) for at in one.sizes))
            for one in found.mean.predictors
        ),
        caption="95 % interval over documents",
        together=True,
    )


def _gains(model: str, found: TaskAware) -> Table:
    rows: list[tuple[Value, ...]] = [
        (one.predictor, over.over, over.gain)
        for one in found.mean.predictors
        for over in one.sizes[0].gains
    ]
    return Table(
        title=f"{model}: gain in recall@{found.k}, paired by document, mean over layers",
        columns=("predictor", "over", "gain"),
        rows=tuple(rows),
    )


def _by_layer(model: str, found: TaskAware) -> Table:
    names = [one.predictor for one in found.mean.predictors]
    overs = [one.over for one in _of(found.layers[0], BESIDE).gains]
    return Table(
        title=f"{model}: recall@{found.k} by layer",
        columns=("layer", *names, *(f"gain of {BESIDE} over {over}" for over in overs)),
        rows=tuple(
            (
                str(layer.layer),
                *(_value(_of(layer, name).recall) for name in names),
                *(estimate(one.gain) for one in _of(layer, BESIDE).gains),
            )
            for layer in found.layers
        ),
        caption="intervals of all of them are in the JSON",
        together=True,
    )


def _of(layer: TaskLayer, predictor: str) -> RecallAt:
    return next(one.sizes[0] for one in layer.predictors if one.predictor == predictor)


def _value(statistic: Statistic) -> float | None:
    return statistic.value


def _bars(model: str, found: TaskAware) -> Bars:
    return Bars(
        title=f"{model}: recall@{found.k}, mean over the layers after {found.probe_layer}",
        rows=tuple((o.predictor, estimate(o.sizes[0].recall)) for o in found.mean.predictors),
        low=0.0,
        high=1.0,
        caption=f"drawn at random: {found.chance:.3f}",
    )


def _plans(found: list[tuple[str, TaskAware]]) -> Iterator[Section]:
    plans = [(model, one.plan) for model, one in found if one.plan is not None]
    if plans:
        yield Section(
            heading="What keeping some experts in memory would cost",
            text=(
                f"{plans[0][1].definition[0].upper()}{plans[0][1].definition[1:]}.",
                *(_plan_size(model, plan) for model, plan in plans),
            ),
            tables=tuple(_plan_table(model, plan) for model, plan in plans),
        )


def _plan_size(model: str, plan: OffloadPlan) -> str:
    sizes = sorted(set(plan.expert_bytes))
    each = (
        " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1]))) if sizes else ""
    )
    whole = (
        f"one expert takes {each} bytes in the checkpoint, all of them {plan.all_bytes:,}"
        if plan.all_bytes is not None
        else "what one expert takes could not be told from the checkpoint"
    )
    return (
        f"{model}: {whole}; {plan.documents} documents, {plan.tokens:,} tokens; "
        f"{plan.bandwidth / 1e9:g} · 10⁹ bytes a second."
    )


def _plan_table(model: str, plan: OffloadPlan) -> Table:
    rows: list[tuple[Value, ...]] = [
        (
            str(row.capacity),
            None if row.memory_bytes is None else row.memory_bytes / _MEGA,
            row.policy,
            row.hit_rate,
            row.over_lru,
            row.over_token,
            _scaled(row.bytes_per_token, 1 / _MEGA),
            row.stall_ms,
            row.stall_ms_at_worst,
        )
        for row in plan.rows
    ]
    return Table(
        title=f"{model}: caches of {plan.num_experts} experts a layer, {plan.top_k} a token",
        columns=(
            "experts in memory, a layer", "memory, MB", "policy", "hit rate", "over LRU",
            "over the token's", "fetched, MB a token", "stall, ms a token", "at worst",
        ),
        rows=tuple(rows),
        caption="95 % interval over documents in brackets",
        together=True,
    )  # fmt: skip


def _scaled(statistic: Statistic, factor: float) -> Statistic:
    """In another unit."""
    limits = (statistic.value, statistic.ci_low, statistic.ci_high)
    value, low, high = (None if x is None else x * factor for x in limits)
    return Statistic(
        value=value, ci_low=low, ci_high=high, n_tokens=statistic.n_tokens,
        n_documents=statistic.n_documents, seed=statistic.seed, caveat=statistic.caveat,
    )  # fmt: skip


def _seed(result: SuiteResult) -> Iterator[Section]:
    found = [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, SeedTask)
    ]
    if found:
        yield Section(
            heading="Prediction from an early layer as published",
            text=(f"{found[0][1].scores.definition}.",),
            tables=tuple(
                seed_table(f"{model}, from layer {one.probe_layer}", one.scores)
                for model, one in found
            ),
        )
