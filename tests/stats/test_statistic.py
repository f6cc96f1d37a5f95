import math

import msgspec
import pytest

from moetui.stats import Statistic
from moetui.stats.statistic import finite, joined


def test_missing_is_none_and_never_nan():
    assert Statistic().value is None
    for number in (math.nan, math.inf):
        with pytest.raises(ValueError, match="missing is None"):
            Statistic(value=number)


def test_a_permutation_p_is_never_zero():
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        Statistic(p=0.0)


def test_a_statistic_survives_json():
    given = Statistic(value=0.5, ci_low=0.4, ci_high=0.6, n_documents=100, seed=3)
    assert msgspec.json.decode(msgspec.json.encode(given), type=Statistic) == given


def test_small_parts():
    assert finite(math.nan) is None and finite(2) == 2.0
    assert joined(None, "a", "", "b") == "a; b" and joined(None) is None
