"""The study `manipulation`: whole runs of small models, and verdicts on numbers that are known."""

from __future__ import annotations

import msgspec
import pytest

import moetui
from moetui.analyses.manipulation import DEFINITION, Effect, Manipulation
from moetui.analyses.manipulation_check import AT, METHODS, TOKENS
from moetui.analyses.manipulation_fit import SeedManipulation
from moetui.analyses.misrouting import Misrouting
from moetui.analyses.routing_robustness import RoutingRobustness
from moetui.errors import UsageError
from moetui.stats import Statistic
from moetui.suites.moe_dynamics import preset, study_suite
from moetui.suites.moe_dynamics.manipulation_plan import Parameters
from moetui.suites.moe_dynamics.manipulation_sections import sections
from moetui.suites.moe_dynamics.manipulation_verdict import (
    BY_TOKEN,
    FORCED,
    INCONCLUSIVE,
    NOT,
    PARTLY,
    UNCLEAR,
    conclude,
)
from moetui.suites.results import AnalysisResult, CellResult
from tests.reference.values import DATA
from tests.suites.moe_dynamics.steps import run_analyses
from tests.suites.sample import make_result

SMALL = {
    "documents": 4, "calibration_documents": 6, "tokens": 16, "layers": ["mid"], "targets": 2,
    "contexts": 3, "context_tokens": 6, "after": 2, "fit_contexts": 2, "scan_tokens": 8,
    "swap_tokens": 2, "search_steps": 1, "search_candidates": 4, "prompt_steps": 1,
    "misrouting_contexts": 2, "misrouting_swaps": 4, "robustness_documents": 2, "problems": 2,
    "noise": [0.1], "bits": [4], "prompt_variants": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", ["demo", "mixtral", "gpt_oss"])
def test_every_analysis_ends_and_says_what_was_done(name: str) -> None:
    model = moetui.load(name if name == "demo" else DATA / name)
    suite = study_suite("manipulation", SMALL)
    cells = run_analyses(suite, model)
    by_name = {cell.analysis: cell for cell in cells}
    assert {n for n, c in by_name.items() if c.result is None} == set()
    found = by_name["manipulation"].result
    assert isinstance(found, Manipulation)
    assert len(found.targets) == 3 and found.contexts + found.too_short == 3
    forced = {e.method: e for e in found.mean}["expert forced"]
    assert forced.success is not None and forced.success.value == 1
    stream = {e.method: e for e in found.mean}["smallest change of the stream"]
    assert stream.success is not None and stream.success.value == 1
    assert stream.excess is not None
    for one in (stream.success, stream.excess):
        assert "a check and no contest" in (one.caveat or "")
    assert forced.success.caveat is None or "no contest" not in forced.success.caveat
    attacks = by_name["misrouting"].result
    assert isinstance(attacks, Misrouting)
    assert "by construction" in (attacks.beyond.caveat or "")
    shaken = by_name["routing_robustness"].result
    assert isinstance(shaken, RoutingRobustness)
    # A typing error is looked at in last tokens, which its null is of.
    changes = {flips.name: flips.change for flips in shaken.perturbations if flips.change}
    told = {name: "last tokens only" in (one.caveat or "") for name, one in changes.items()}
    assert told and all(told[name] == ("typing" not in name) for name in told)
    for cell in cells:
        raw = msgspec.json.encode(cell.result)
        assert msgspec.json.decode(raw, type=AnalysisResult) == cell.result
    (verdicts,) = suite.conclude(cells)
    assert verdicts.corrected.outcome == INCONCLUSIVE  # three contexts have no interval
    assert verdicts.seed.outcome in (FORCED, PARTLY, NOT)
    names = {measure.name for measure in suite.measures(model.info.name, cells)}
    assert "manipulation: tokens before it, by gradient: beyond random" in names


@pytest.mark.slow
def test_the_same_seed_gives_the_same_and_parts_do_not_depend_on_what_was_run() -> None:
    few = {**SMALL, "contexts": 2, "documents": 2, "scan_tokens": 4, "targets": 1}
    model = moetui.load("demo")
    once, again = (run_analyses(study_suite("manipulation", few), model) for _ in range(2))
    assert once == again


def test_a_dense_model_is_inconclusive_with_the_reason() -> None:
    suite = study_suite("manipulation", SMALL)
    cells = run_analyses(suite, moetui.load("demo-dense"))
    assert all(cell.result is None and cell.reason for cell in cells)
    (verdicts,) = suite.conclude(cells)
    assert verdicts.seed.outcome == verdicts.corrected.outcome == INCONCLUSIVE
    assert "no router" in verdicts.corrected.statement or "dense" in verdicts.corrected.statement


def test_presets_name_parameters_that_there_are_and_quick_costs_less() -> None:
    costs = {}
    for which in ("quick", "default"):
        given = {} if which == "default" else preset("manipulation", which)
        suite = study_suite("manipulation", given)
        parts = [p for a in suite.analyses for p in a.parts(seed=0)]
        costs[which] = sum(part.tokens or 0 for part in parts)
    assert costs["quick"] < costs["default"] / 3
    assert 300_000 < costs["default"] < 520_000
    study_suite("manipulation", preset("manipulation", "full"))


def test_contexts_longer_than_documents_and_strange_sequences_are_refused() -> None:
    with pytest.raises(UsageError, match="longer than documents"):
        study_suite("manipulation", {"context_tokens": 60})
    model = moetui.load("demo")
    for sequence, said in (([[99, 0]], "does not route"), ([[0, 99]], "no expert 99")):
        suite = study_suite("manipulation", {**SMALL, "sequence": sequence})
        seed = next(a for a in suite.analyses if a.name == "seed_manipulation")
        (part,) = seed.parts(seed=0)
        with pytest.raises(UsageError, match=said):
            seed.read(model, part, {}, seed=0, step=lambda done, of: None)


def number(value, low=None, high=None, null=None, p=None):
    return Statistic(
        value=value, ci_low=low, ci_high=high, null_mean=null, null_high=null, p=p, n_documents=64
    )


def effect(method, success, excess):
    return Effect(method=method, success=success, excess=excess)


def cell(tokens, at, *, model="m", reason=None):
    """A cell whose methods have (success, excess)."""
    effects = [
        effect(method, *(tokens if method == TOKENS else at if method == AT else (None, None)))
        for method in METHODS
    ]
    found = Manipulation(
        definition=DEFINITION, corpus=None, contexts=64, too_short=0, tokens=16, after=8, draws=20,
        untouched=number(0.2), prompts=number(0.2), mean=tuple(effects), rarest=tuple(effects),
        targets=(), stream=None, reason=reason,
    )  # fmt: skip
    return CellResult(
        model=model, analysis="manipulation", status="done", reason=reason, seconds=0.0,
        result=found,
    )  # fmt: skip


STRONG = (number(0.9, 0.8, 0.95, 0.3, 0.048), number(0.6, 0.5, 0.7))
WEAK = (number(0.4, 0.3, 0.5, 0.3, 0.048), number(0.1, 0.03, 0.2))
SAME = (number(0.3, 0.2, 0.4, 0.3, 0.5), number(0.0, -0.05, 0.05))
WIDE = (number(0.4, 0.2, 0.6, 0.3, 0.1), number(0.1, -0.1, 0.3))
LUCKY = (number(0.9, 0.8, 0.95, 0.9, 0.3), number(0.3, 0.2, 0.4))
STILL = (number(0.0, 0.0, 0.05, 0.0, 1.0), number(0.0))


@pytest.mark.parametrize(
    ("tokens", "at", "outcome"),
    [
        (STRONG, STRONG, FORCED),
        (WEAK, STRONG, PARTLY),
        (SAME, STRONG, BY_TOKEN),
        (SAME, SAME, NOT),
        (STILL, STILL, NOT),
        (WIDE, SAME, UNCLEAR),
        (LUCKY, SAME, UNCLEAR),  # random tokens reach as much in 1 of 3 draws
        ((number(0.9, p=0.048, null=0.3), STRONG[1]), STRONG, INCONCLUSIVE),
    ],
)
def test_the_corrected_rule(tokens, at, outcome) -> None:
    verdicts = conclude([cell(tokens, at)])
    assert verdicts.corrected.outcome == outcome
    assert verdicts.seed.outcome == INCONCLUSIVE


def test_the_corrected_rule_holds_of_every_model() -> None:
    assert conclude([cell(STRONG, STRONG), cell(WEAK, WEAK, model="n")]).corrected.outcome == PARTLY
    assert (
        conclude([cell(STRONG, STRONG), cell(SAME, SAME, model="n")]).corrected.outcome == UNCLEAR
    )
    few = conclude([cell(STRONG, STRONG, reason="2 contexts")]).corrected
    assert few.outcome == INCONCLUSIVE and "2 contexts" in few.statement


@pytest.mark.parametrize(
    ("before", "after", "outcome"), [(0.0, 1.0, FORCED), (0.3, 0.6, PARTLY), (0.3, 0.3, NOT)]
)
def test_the_seed_rule(before, after, outcome) -> None:
    found = SeedManipulation(
        prompt="def f", sequence="L0-E1 → L1-E2", crafted="x", before=number(before),
        after=number(after),
    )  # fmt: skip
    one = CellResult(
        model="m", analysis="seed_manipulation", status="done", reason=None, seconds=0.0,
        result=found,
    )  # fmt: skip
    assert conclude([one]).seed.outcome == outcome


def test_sections_show_what_there_is_and_nothing_of_other_suites() -> None:
    assert sections(make_result()) == ()


def test_every_option_of_the_seed_is_a_documented_parameter() -> None:
    schema = msgspec.json.schema(Parameters)["$defs"]["Parameters"]["properties"]
    assert schema["prompt"]["default"].startswith("def")
    assert all(field.get("description") for field in schema.values())
