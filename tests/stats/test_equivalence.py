import numpy as np
import pytest

from moetui.stats import Statistic, document_bootstrap, equivalent


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.004, 0.009, "equivalent"),
        (0.001, 0.009, "equivalent"),  # not zero, yet within the margin
        (-0.004, 0.02, "undecided"),
        (0.005, 0.02, "undecided"),
        (-0.02, 0.02, "undecided"),
        (0.01, 0.03, "different"),
        (-0.03, -0.011, "different"),
    ],
)
def test_the_interval_decides(low, high, outcome):
    found = equivalent(Statistic(value=(low + high) / 2, ci_low=low, ci_high=high), 0.01)
    assert (found.outcome, found.margin, found.reason) == (outcome, 0.01, None)


@pytest.mark.parametrize("statistic", [Statistic(value=0.0, caveat="9 documents"), Statistic()])
def test_without_an_interval_nothing_is_called_equivalent(statistic):
    found = equivalent(statistic, 0.01)
    assert found.outcome == "inconclusive"
    assert found.reason == (statistic.caveat or "no interval")


def test_an_effect_at_the_margin_is_rarely_called_none():
    rng = np.random.default_rng(6)
    outcomes = {}
    for truth in (0.0, 0.5):
        found = []
        for run in range(200):
            x = rng.normal(truth, 1.0, 120)
            mean = document_bootstrap(lambda w, x=x: w @ x / w.sum(axis=-1), 120, seed=run)
            found.append(equivalent(mean, 0.5).outcome)
        outcomes[truth] = found
    assert outcomes[0.5].count("equivalent") / 200 <= 0.05  # level 0.025
    assert outcomes[0.0].count("equivalent") / 200 > 0.9


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_a_margin_is_above_zero(margin):
    with pytest.raises(ValueError, match="margin"):
        equivalent(Statistic(value=0.0, ci_low=-1.0, ci_high=1.0), margin)
