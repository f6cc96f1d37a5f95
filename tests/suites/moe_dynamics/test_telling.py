import pytest

from moetui.stats import Statistic
from moetui.suites.moe_dynamics.telling import (
    DIFFER,
    INCONCLUSIVE,
    agreed,
    experts,
    limits,
    told,
)


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        ({"a": "x"}, "x"),
        ({"a": "x", "b": "x"}, "x"),
        ({"a": "x", "b": "y"}, DIFFER),
        ({"a": "x", "b": INCONCLUSIVE}, INCONCLUSIVE),
        ({}, INCONCLUSIVE),
    ],
)
def test_models_agree_differ_or_leave_it_open(outcomes, whole):
    assert agreed(outcomes) == whole


def test_a_number_is_told_with_its_interval_where_it_has_one():
    assert told(Statistic(value=0.5, ci_low=0.25, ci_high=0.75)) == "0.500 [0.250, 0.750]"
    assert told(Statistic(value=0.5)) == "0.500"
    assert told(Statistic()) == told(None) == "unknown"
    assert (experts(1), experts(4)) == ("1 expert", "4 experts")


def test_a_value_that_no_resample_changes_is_its_own_interval_if_documents_are_enough():
    assert limits(Statistic(value=0.5, ci_low=0.25, ci_high=0.75)) == (0.25, 0.75)
    assert limits(Statistic(value=0.0, n_documents=20)) == (0.0, 0.0)
    assert limits(Statistic(value=0.0, n_documents=19)) is None
    assert limits(Statistic(n_documents=200)) is None
