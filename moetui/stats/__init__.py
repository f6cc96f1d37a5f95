"""Statistics that a claim about routing rests on: intervals, nulls, load. numpy and scipy only."""

from moetui.stats.bootstrap import (
    Estimator,
    Intervals,
    document_intervals,
    document_statistic,
    ratio_of_sums,
)
from moetui.stats.difference import difference, sign_flip
from moetui.stats.divergence import kl_divergence, log_softmax
from moetui.stats.load import LoadIndices, load_indices
from moetui.stats.overlap import (
    central_band,
    expected_jaccard,
    expected_overlap,
    jaccard,
    mean_jaccard,
    overlap_chance,
    set_overlap,
    variation_chance,
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
from moetui.stats.subsets import Subsets, fit_subsets

__all__ = [
    "APPROXIMATE",
    "MIN_DOCUMENTS",
    "Estimator",
    "Intervals",
    "LoadIndices",
    "Statistic",
    "Subsets",
    "binary_design_effect",
    "central_band",
    "design_effect",
    "difference",
    "document_intervals",
    "document_statistic",
    "expected_jaccard",
    "expected_overlap",
    "extreme_draws",
    "finite",
    "fit_subsets",
    "jaccard",
    "joined",
    "kl_divergence",
    "load_indices",
    "log_softmax",
    "mean_jaccard",
    "overlap_chance",
    "permutation_p",
    "rate",
    "ratio_of_sums",
    "set_overlap",
    "sign_flip",
    "variation_chance",
    "wilson",
]
