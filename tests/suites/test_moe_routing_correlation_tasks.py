"""The arithmetic analyses as the runner sees them: pure parts, packed partials, one result each."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from moetui.analyses.task_prompts import SEED_PROMPTS, TASKS, TaskPrompt, crossed_prompts, problems
from moetui.suites.moe_routing_correlation_tasks import (
    AccuracyAnalysis,
    ProbeAnalysis,
    VirtualExpertAnalysis,
    accuracy_measures,
    probe_measures,
    virtual_expert_measures,
)
from moetui.suites.pack import pack, unpack
from moetui.suites.results import AnalysisResult
from tests.fake_tasks import TaskForward

PAIRS = 4
ASKED: dict[str, TaskPrompt] = {
    item.prompt: item
    for item in (
        *SEED_PROMPTS,
        *crossed_prompts(PAIRS, seed=0),
        *problems(10, seed=0),
        *problems(2, seed=0),
    )
}


def model(**info: object) -> TaskForward:
    """Answers right except where 7 is an operand; layers 1 and 2 of 4 hold the operation."""

    def hidden(prompt: str) -> np.ndarray:
        streams = np.random.default_rng(list(prompt.encode())).normal(size=(4, 8))
        streams[1:3, TASKS.index(ASKED[prompt].task)] += 6
        return streams

    def writes(prompt: str) -> str:
        item = ASKED[prompt]
        return f" {item.answer + ('7' in item.operands.split(','))}\n"

    return TaskForward(hidden=hidden, writes=writes, moe_layers=(), **info)


def run(analysis, fake, needs=None, seed=0):  # type: ignore[no-untyped-def]
    """Partials through their bytes, and the outcome through its JSON."""
    left = []
    for part in analysis.parts(seed=seed):
        told: list[tuple[int, int]] = []
        found = analysis.read(
            fake, part, needs or {}, seed=seed, step=lambda *done, t=told: t.append(done)
        )
        left.append(unpack(pack(found), analysis.partial_type))
    outcome = analysis.reduce(fake.info, left, seed=seed)
    stored = msgspec.json.encode(outcome.result)
    assert msgspec.json.decode(stored, type=AnalysisResult) == outcome.result
    return left, outcome


def test_probes_find_what_two_layers_hold_and_the_router_uses_it() -> None:
    left, outcome = run(ProbeAnalysis(pairs=PAIRS), model())
    found = outcome.result
    assert [probe.layer for probe in found.seed] == [1, 2]
    for depth, layer in ((0.25, 1), (0.5, 2)):
        probe = found.probe("residual stream", depth)
        assert probe.layer == layer and probe.unseen.value > 0.9
    assert found.no_routing is not None and len(found.probes) == 4
    _, routed = run(VirtualExpertAnalysis(), model(), {"probes": left})
    assert routed.result.layer == 1 and routed.result.accuracy.value > 0.9
    names = [m.name for m in probe_measures("m", found)]
    assert len(set(names)) == len(names) == 4
    (measure,) = virtual_expert_measures("m", routed.result)
    assert measure.statistic == routed.result.accuracy


def test_accuracy_keeps_every_answer() -> None:
    fake = model()
    _, outcome = run(AccuracyAnalysis(per_task=10), fake)
    found = outcome.result
    wrong = [item for item in problems(10, seed=0) if "7" in item.operands.split(",")]
    assert found.accuracy.value == pytest.approx(1 - len(wrong) / 40)
    assert [i.prompt for i in found.items if not i.exact] == [item.prompt for item in wrong]
    assert len(found.seed_items) == 12 and len(found.warnings) == 1
    of_seed, corrected = accuracy_measures("m", found)
    assert (of_seed.label, corrected.label) == ("seed", "corrected")
    assert corrected.units is not None and np.mean(corrected.units) == found.accuracy.value
    assert fake.prompts == [i.prompt for i in (*SEED_PROMPTS, *problems(10, seed=0))]


def test_parts_are_named_once_and_hold_all_prompts_in_their_inputs() -> None:
    for analysis, prompts in (
        (ProbeAnalysis(pairs=PAIRS), crossed_prompts(PAIRS, seed=3)),
        (AccuracyAnalysis(per_task=50), problems(50, seed=3)),
    ):
        parts = analysis.parts(seed=3)
        assert len({part.name for part in parts}) == len(parts) >= 8
        given = [item for part in parts for item in part.inputs.items]
        assert given == [*SEED_PROMPTS, *prompts]
        assert parts == analysis.parts(seed=3) != analysis.parts(seed=4)


def test_a_part_gives_the_same_whichever_ran_before() -> None:
    analysis = ProbeAnalysis(pairs=PAIRS)
    parts = analysis.parts(seed=0)
    alone = analysis.read(model(), parts[3], {}, seed=0, step=lambda *_: None)
    fake = model()
    for part in parts:
        found = analysis.read(fake, part, {}, seed=0, step=lambda *_: None)
        if part == parts[3]:
            assert (found.features.residual == alone.features.residual).all()


def test_too_few_problems_are_an_inconclusive_outcome() -> None:
    _, outcome = run(AccuracyAnalysis(per_task=2), model())
    assert outcome.reason is not None and outcome.result.verdict == "inconclusive"


def test_every_model_can_be_asked() -> None:
    for analysis in (ProbeAnalysis(), AccuracyAnalysis(), VirtualExpertAnalysis()):
        assert analysis.unfit(model().info) is None
