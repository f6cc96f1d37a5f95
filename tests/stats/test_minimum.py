import pytest

from moetui.stats import Statistic
from moetui.stats.minimum import DECOMPOSITION, LOAD, MINIMA, PREDICTION, enough, warned, warning


@pytest.mark.parametrize(
    ("tokens", "documents", "found"),
    [
        (3000, 30, "ok"),
        (2999, 30, "below the minimum"),
        (90_000, 29, "below the minimum"),
        (300, 3, "below the minimum"),
        (299, 300, "inconclusive"),
        (90_000, 2, "inconclusive"),
    ],
)
def test_the_size_that_falls_shortest_decides(tokens, documents, found):
    assert enough(LOAD, effective_tokens=tokens, documents=documents) == found
    told = warning(LOAD, effective_tokens=tokens, documents=documents)
    assert (told is None) == (found == "ok")


@pytest.mark.parametrize(
    ("documents", "tokens", "found"),
    [
        (100, 10, "ok"),
        (3, 5000, "ok"),
        (99, 4999, "below the minimum"),
        (9, 500, "below the minimum"),
        (9, 499, "inconclusive"),
    ],
)
def test_where_one_of_two_sizes_will_do_the_better_one_decides(documents, tokens, found):
    assert enough(DECOMPOSITION, documents=documents, tokens=tokens) == found


@pytest.mark.parametrize(
    ("minimum", "sizes", "told"),
    [
        (
            LOAD,
            {"effective_tokens": 812.7, "documents": 20},
            "812 effective tokens and 20 documents: below the minimum size of 3,000 effective "
            "tokens and 30 documents",
        ),
        # What is enough falls short of nothing.
        (
            PREDICTION,
            {"documents": 40, "tokens": 2560},
            "40 documents: below the minimum size of 100 documents",
        ),
        (
            LOAD,
            {"effective_tokens": 12, "documents": 20},
            "12 effective tokens: below a tenth of the minimum size of 3,000 effective tokens",
        ),
        (
            DECOMPOSITION,
            {"documents": 20, "tokens": 600},
            "20 documents and 600 tokens: below the minimum size of 100 documents or 5,000 tokens",
        ),
    ],
)
def test_a_warning_names_what_falls_short_and_what_is_needed_of_it(minimum, sizes, told):
    assert warning(minimum, **sizes) == told


def test_a_warning_comes_before_the_statistics_own_caveat():
    found = warned(Statistic(value=1.0, caveat="own"), DECOMPOSITION, documents=20, tokens=600)
    assert found.caveat.startswith("20 documents and 600 tokens: below the minimum")
    assert found.caveat.endswith("; own")
    same = Statistic(value=1.0)
    assert warned(same, DECOMPOSITION, documents=100, tokens=1) == same


def test_sizes_in_another_unit_are_refused():
    with pytest.raises(ValueError, match="effective_tokens, documents"):
        enough(LOAD, tokens=3000, documents=30)


def test_every_minimum_names_what_it_is_for():
    assert len({minimum.what for minimum in MINIMA}) == len(MINIMA)
    assert all(size > 0 for minimum in MINIMA for size in minimum.needs.values())
