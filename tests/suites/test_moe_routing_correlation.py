"""The suite on a model of words: the seed's verdict beside one that needs evidence."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from moetui.analyses.task_prompts import SEED_PROMPTS, TASK_WORDS, TASKS
from moetui.analyses.vocabulary_alignment import (
    LayerAlignment,
    LensAlignment,
    LensMean,
    PromptRow,
    PromptSetAlignment,
    VocabularyAlignment,
)
from moetui.errors import UsageError
from moetui.stats import Statistic, equivalent
from moetui.suites.moe_routing_correlation import Parameters, seed_items, suite
from moetui.suites.moe_routing_correlation_lens import word_layers
from moetui.suites.moe_routing_correlation_measures import PEAK, measures
from moetui.suites.moe_routing_correlation_verdict import (
    conclude,
    corrected_outcome,
    seed_outcome,
)
from moetui.suites.pack import pack, unpack
from moetui.suites.plan import Outcome
from moetui.suites.results import CellResult
from tests.builders import make_model_info

TEMPLATES = 7


def statistic(value: float, low: float, high: float, q: float | None = 0.001) -> Statistic:
    return Statistic(value=value, ci_low=low, ci_high=high, q=q, n_documents=28, seed=0)


def alignment(
    seed: float, probability: float, spread: float, *, routers: bool, prompts: int = 3
) -> VocabularyAlignment:
    """One layer; probability ± spread on the wordings of the larger set."""
    told = statistic(probability, probability - spread, probability + spread)
    lens = LensAlignment(
        lens="raw", probability=told, log_odds=told, specificity=told, median_rank=told, kl=told
    )
    peak = Statistic(value=seed, n_documents=12, seed=0)
    rng = np.random.default_rng(int(routers))
    rows = tuple(
        PromptRow(
            prompt=f"{template} {task} {n}", task=task, template=str(template),
            cluster=f"{template} {task}", seed=(seed,),
            probability=(probability + spread * rng.uniform(-1, 1),), log_odds=(1.0,),
            specificity=(0.5 + 0.1 * rng.uniform(),), tuned_probability=(), tuned_specificity=(),
        )
        for template in range(TEMPLATES) for task in TASKS for n in range(prompts)
    )  # fmt: skip

    def of(name: str, chosen: tuple[PromptRow, ...]) -> PromptSetAlignment:
        return PromptSetAlignment(
            name=name,
            layers=(LayerAlignment(layer=2, depth=0.25, seed=peak, lenses=(lens,)),),
            means=(LensMean(lens="raw", probability=told, log_odds=told, specificity=told),),
            peak_layer=2,
            peak=peak,
            said={},
            prompts=chosen,
        )

    return VocabularyAlignment(
        seed_definition="s", definition="c", routers=routers, words=(),
        sets=(of("seed", rows[:12]), of("larger", rows)), tuned_reason=None,
    )  # fmt: skip


def cells(**found: VocabularyAlignment) -> list[CellResult]:
    return [
        CellResult(
            model=model, analysis="vocabulary_alignment", status="done", reason=None, seconds=0,
            result=result,
        )
        for model, result in found.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("moe", "dense", "outcome"),
    [
        (0.11, 0.0, "supported"),
        (0.11, 0.11, "not separable"),
        (0.10, 0.0, "partial"),
        (0.05, 0.0, "partial"),
        (0.049, 0.0, "rejected"),
        (0.0, 0.0, "rejected"),
        (0.0, 0.5, "rejected"),
    ],
)
def test_the_seeds_rule(moe: float, dense: float, outcome: str) -> None:
    assert seed_outcome(moe, dense) == outcome


NONE, BOTH = (0.001, 0.0005, 0.002), (0.3, 0.2, 0.4)


@pytest.mark.parametrize(
    ("moe", "dense", "difference", "q", "outcome"),
    [
        (BOTH, NONE, (0.3, 0.2, 0.4), 0.001, "supported"),
        (BOTH, NONE, (0.3, 0.2, 0.4), 0.2, "unclear"),
        ((0.11, 0.08, 0.14), NONE, (0.11, 0.08, 0.14), 0.001, "partial"),
        ((0.11, 0.04, 0.2), NONE, (0.11, 0.04, 0.2), 0.001, "unclear"),
        (BOTH, BOTH, (0.0, -0.1, 0.1), 0.001, "not separable"),
        (NONE, NONE, (0.0, -0.001, 0.001), 0.001, "rejected"),
        (NONE, NONE, (0.0, -0.1, 0.1), 0.001, "unclear"),
        (NONE, BOTH, (-0.3, -0.4, -0.2), 0.001, "unclear"),
    ],
)
def test_the_corrected_rule(moe, dense, difference, q, outcome) -> None:
    test = equivalent(statistic(*difference), 0.05)
    assert corrected_outcome(statistic(*moe, q), statistic(*dense), test) == outcome


def test_without_an_interval_the_corrected_rule_says_nothing() -> None:
    bare, told = Statistic(value=0.3), statistic(*NONE)
    assert corrected_outcome(bare, told, equivalent(told, 0.05)) == "inconclusive"


def test_equal_models_are_rejected_by_equivalence_and_the_seed_by_its_threshold() -> None:
    found = conclude(
        cells(
            moe=alignment(0.002, 0.003, 0.001, routers=True),
            dense=alignment(0.001, 0.003, 0.001, routers=False),
        )
    )
    assert (found.seed.outcome, found.corrected.outcome) == ("rejected", "rejected")
    assert [m.statistic.value for m in found.seed.evidence] == [0.002, 0.001]
    difference = found.corrected.evidence[2]
    assert difference.model == "moe − dense" and "equivalent" in difference.name
    assert difference.statistic.n_documents == 28
    assert difference.statistic.ci_low is not None and difference.statistic.ci_low > -0.001


def test_words_that_only_the_seed_counts_are_not_support() -> None:
    found = conclude(
        cells(
            moe=alignment(0.4, 0.003, 0.001, routers=True),
            dense=alignment(0.0, 0.003, 0.001, routers=False),
        )
    )
    assert (found.seed.outcome, found.corrected.outcome) == ("supported", "rejected")
    assert "prompt itself says" in found.why_they_differ


def test_a_model_that_failed_beside_others_is_named_with_the_verdict() -> None:
    def failed(model: str) -> CellResult:
        return CellResult(
            model=model, analysis="tuned_lens", status="failed", reason="no memory", seconds=0,
            result=None,
        )  # fmt: skip

    both = cells(
        moe=alignment(0.002, 0.003, 0.001, routers=True),
        dense=alignment(0.001, 0.003, 0.001, routers=False),
    )
    found = conclude([*both, failed("other"), failed("moe")])
    for verdict in (found.seed, found.corrected):
        assert verdict.outcome == "rejected" and verdict.statement.endswith("; not measured: other")
    assert "not measured" not in conclude(both).seed.statement


def test_a_missing_kind_of_model_gives_no_verdict_and_names_what_failed() -> None:
    failed = CellResult(
        model="dense", analysis="vocabulary_alignment", status="failed", reason="no such model",
        seconds=0, result=None,
    )  # fmt: skip
    found = conclude([*cells(moe=alignment(0.4, 0.3, 0.01, routers=True)), failed])
    for verdict in (found.seed, found.corrected):
        assert verdict.outcome == "inconclusive"
        assert "without routers" in verdict.statement and "no such model" in verdict.statement


def test_few_prompts_give_no_corrected_verdict() -> None:
    few = {name: alignment(0.0, 0.003, 0.001, routers=name == "moe", prompts=1)
           for name in ("moe", "dense")}  # fmt: skip
    assert conclude(cells(**few)).corrected.outcome == "inconclusive"


def test_defaults_are_the_seeds() -> None:
    given = Parameters()
    assert given.models == ("demo", "demo-dense")
    assert sum(map(len, given.prompts.values())) == 12
    assert given.prompts["subtraction"] == ("10 - 4 = ", "25 - 8 = ", "100 - 37 = ")
    assert given.words == TASK_WORDS and given.words["division"][-1] == "÷"
    assert seed_items(given.prompts) == SEED_PROMPTS
    # The parameters can be written and read as JSON: a configuration holds no more.
    assert msgspec.convert(json.loads(msgspec.json.encode(given)), Parameters) == given


@pytest.mark.parametrize(
    ("given", "run"),
    [
        (("demo",), ("demo", "demo-dense")),
        (("demo-dense",), ("demo-dense",)),
        (("a/b", "a/b", "demo"), ("a/b", "demo")),
    ],
)
def test_the_bundled_mixture_alone_is_compared_with_its_dense_counterpart(given, run) -> None:
    assert suite({"models": given}).models == run


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"addition": ["what is 3?"]}, "no problem of addition"),
        ({"addition": ["3 - 2 = "]}, "no problem of addition"),
        ({"division": ["7 / 2 = "]}, "no whole number"),
    ],
)
def test_a_prompt_without_a_whole_answer_is_refused(prompts, message) -> None:
    with pytest.raises(UsageError, match=message):
        suite({"prompts": prompts})


def test_prompts_that_no_words_name_are_refused() -> None:
    words = {"addition": ["plus"], "division": ["over"]}
    with pytest.raises(UsageError, match="no prompt of an operation"):
        suite({"words": words, "prompts": {"subtraction": ["3 - 2 = "]}})


def test_layers_are_the_seeds_or_those_asked_for() -> None:
    info = make_model_info(num_layers=16)
    assert word_layers(None, info) == (4, 6, 8, 10, 12, 14)
    assert word_layers((3, "last"), info) == (3, 15)
    with pytest.raises(UsageError, match="layer 16"):
        word_layers((16,), info)


def test_the_headline_numbers_stand_with_the_seeds_prompts_one_by_one() -> None:
    found = measures("moe", cells(moe=alignment(0.2, 0.3, 0.1, routers=True)))
    peak = next(measure for measure in found if measure.name == PEAK)
    assert peak.statistic.value == 0.2 and peak.units == (0.2,) * 12
    names = [measure.name for measure in found if measure.label == "corrected"]
    assert len(names) == len(set(names)) == 2


def test_a_result_survives_the_store_and_json() -> None:
    outcome = Outcome(alignment(0.2, 0.3, 0.1, routers=True))
    assert unpack(pack(outcome), Outcome) == outcome
