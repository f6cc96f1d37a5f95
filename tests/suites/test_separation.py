"""Which numbers tell the trained model from the same one with random weights."""

import pytest

from moetui.stats import Statistic
from moetui.suites.results import Measure, ModelRecord
from moetui.suites.separation import separation

MODELS = (
    ModelRecord(name="a", info=None, failure=None),
    ModelRecord(name="a (random weights)", info=None, failure=None, null_of="a"),
    ModelRecord(name="b", info=None, failure=None),
)


def measure(model, value, half=None, *, units=None, name="share"):
    low, high = (None, None) if half is None else (value - half, value + half)
    found = Statistic(value=value, ci_low=low, ci_high=high)
    return Measure(model=model, label="corrected", name=name, statistic=found, units=units)


def against_null(trained, null):
    return separation([trained, null], MODELS, seed=0)


@pytest.mark.parametrize(
    ("value", "half", "verdict"),
    [
        # |d| against √(0.03² + half²): 0.3 > 0.05; 0.3 < 0.3003 and so on.
        (0.8, 0.04, "separates"),
        (0.2, 0.04, "separates"),
        (0.8, 0.3, "does not separate"),
        (0.8, 0.2984, "separates"),
        (0.8, 0.2986, "does not separate"),
    ],
)
def test_intervals_of_the_difference_decide(value, half, verdict):
    (found,) = against_null(measure("a", value, half), measure("a (random weights)", 0.5, 0.03))
    assert found.verdict == verdict and found.reason is None
    assert found.difference.value == pytest.approx(value - 0.5)
    assert (found.trained.value, found.null.value) == (value, 0.5)
    assert "one draw" in found.difference.caveat


def test_few_prompts_are_compared_one_by_one():
    nine = [0.1 * i for i in range(9)]
    up = tuple(u + 0.3 + 0.01 * i for i, u in enumerate(nine))
    trained = measure("a", sum(up) / 9, units=up)
    null = measure("a (random weights)", sum(nine) / 9, units=tuple(nine))
    (found,) = against_null(trained, null)
    # All nine differences are positive: 2 of 2⁹ sign patterns are as extreme.
    assert found.verdict == "separates" and found.difference.p == pytest.approx(2 / 2**9)
    mixed = tuple(u + (0.1 if i % 2 else -0.1) for i, u in enumerate(nine))
    (found,) = against_null(measure("a", sum(mixed) / 9, units=mixed), null)
    assert found.verdict == "does not separate" and found.difference.p > 0.5


@pytest.mark.parametrize(("n", "verdict"), [(3, "inconclusive"), (5, "inconclusive"), (6, None)])
def test_too_few_prompts_to_reach_the_level_are_no_finding(n, verdict):
    """Even where every prompt speaks for it, p is 2 / 2^n: 0.0625 for 5 prompts."""
    ones, zeros = (1.0,) * n, (0.0,) * n
    trained = measure("a", 1.0, units=ones)
    (found,) = against_null(trained, measure("a (random weights)", 0.0, units=zeros))
    assert found.difference.p == pytest.approx(2 / 2**n)
    assert found.verdict == (verdict or "separates")
    assert found.reason is None if verdict is None else f"{n} prompts" in found.reason


def test_what_cannot_be_compared_is_inconclusive_with_its_reason():
    null = measure("a (random weights)", 0.5, 0.03)
    for trained, other in [
        (measure("a", 0.8), null),  # no interval
        (measure("a", 0.8, units=(0.8, 0.8)), measure("a (random weights)", 0.5, units=(0.5,))),
        (measure("a", 0.8, 0.1), measure("a (random weights)", 0.5, 0.1, name="other")),
    ]:
        (found,) = against_null(trained, other)
        assert found.verdict == "inconclusive" and found.reason


def test_only_models_with_a_null_model_are_compared():
    measures = [measure("a", 0.8, 0.1), measure("b", 0.1, 0.1), measure(MODELS[1].name, 0.5, 0.1)]
    found = separation(measures, MODELS, seed=0)
    assert [(s.model, s.null_model) for s in found] == [("a", "a (random weights)")]
    assert separation(measures[:2], (MODELS[0], MODELS[2]), seed=0) == ()
