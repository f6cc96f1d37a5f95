"""Intervals over units that come in groups."""

import numpy as np
import pytest
from scipy import stats

from moetui.stats import Statistic, document_bootstrap, ratio_of_sums, widened

GROUPS = np.repeat(np.arange(7), 4)


def interval(values, groups=GROUPS, **limits):
    found = document_bootstrap(ratio_of_sums(values, np.ones(28)), 28, seed=0)
    return found, widened(found, values, np.ones(28), groups, name="templates", **limits)


@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0])
def test_the_mean_is_covered_whatever_groups_have_in_common(spread):
    """Seven templates of four wordings: the plain bootstrap covers 0.94, 0.7 and 0.65."""
    rng = np.random.default_rng(0)
    plain, wide = 0, 0
    for _ in range(300):
        values = (rng.normal(size=(7, 1)) * spread + rng.normal(size=(7, 4))).ravel()
        before, after = interval(values)
        plain += before.ci_low <= 0 <= before.ci_high
        wide += after.ci_low <= 0 <= after.ci_high
    assert 0.91 <= wide / 300 <= 0.985
    assert spread == 0 or plain / 300 < 0.8


def test_units_that_repeat_their_group_have_the_interval_of_the_groups():
    """Then between/within is 27/28 · 4 · 7/6 of the plain variance, Student's t has 6 degrees."""
    values = np.repeat([1.0, 2.0, 4.0, 7.0, 11.0, 16.0, 22.0], 4)
    before, after = interval(values)
    factor = np.sqrt(4 * (7 / 6) * (27 / 28)) * stats.t.ppf(0.975, 6) / stats.norm.ppf(0.975)
    assert after.value - after.ci_low == pytest.approx((before.value - before.ci_low) * factor)
    assert after.ci_high - after.value == pytest.approx((before.ci_high - before.value) * factor)
    assert "7 templates" in after.caveat and f"×{factor:.2f}" in after.caveat


def test_it_is_never_narrower_and_stays_within_what_is_possible():
    opposite = np.tile([0.0, 1.0, 0.0, 1.0], 7)  # every group has the same mean
    before, after = interval(opposite)
    assert after == before
    shares = np.repeat([0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.9], 4)
    assert interval(shares)[1].ci_low < 0 == interval(shares, low=0, high=1)[1].ci_low


def test_without_groups_of_several_units_nothing_changes():
    values = np.random.default_rng(1).normal(size=28)
    for groups in (np.arange(28), np.zeros(28)):
        before, after = interval(values, groups)
        assert after == before
    nothing = Statistic(value=0.5)
    assert widened(nothing, values, np.ones(28), GROUPS, name="templates") == nothing
