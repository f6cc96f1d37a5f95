"""Statistics that a claim about routing rests on: intervals, nulls, load. numpy and scipy only."""

from moetui.stats.bootstrap import (
    Estimator,
    Intervals,
    document_intervals,
    document_statistic,
    ratio_of_sums,
)
from moetui.stats.divergence import kl_divergence, log_softmax
from moetui.stats.load import LoadIndices, load_indices
from moetui.stats.overlap import (
    expected_jaccard,
    expected_overlap,
    jaccard,
    overlap_chance,
    set_overlap,
)
from moetui.stats.permutation import extreme_draws, permutation_p
from moetui.stats.rate import binary_design_effect, design_effect, rate, wilson
from moetui.stats.statistic import (
    APPROXIMATE,
    MIN_DOCUMENTS,
    Statistic,
    finite,
    joined,
)

__all__ = [
    "APPROXIMATE",
    "MIN_DOCUMENTS",
    "Estimator",
    "Intervals",
    "LoadIndices",
    "Statistic",
    "binary_design_effect",
    "design_effect",
    "document_intervals",
    "document_statistic",
    "expected_jaccard",
    "expected_overlap",
    "extreme_draws",
    "finite",
    "jaccard",
    "joined",
    "kl_divergence",
    "load_indices",
    "log_softmax",
    "overlap_chance",
    "permutation_p",
    "rate",
    "ratio_of_sums",
    "set_overlap",
    "wilson",
]
