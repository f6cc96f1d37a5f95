"""Statistics that a claim about routing rests on: intervals, nulls, load. numpy and scipy only."""

from moetui.stats.accuracy import PairedAccuracy, mcnemar
from moetui.stats.bootstrap import (
    Estimator,
    Intervals,
    document_bootstrap,
    document_intervals,
    ratio_of_sums,
)
from moetui.stats.cache import CacheUse, PrefetchUse, belady, lfu, lru, lru_with_prefetch
from moetui.stats.coactivation import CoActivation, co_activation, lift, marginal_preserving_null
from moetui.stats.cold import (
    Coldness,
    ColdVerdicts,
    ExpertLoad,
    Threshold,
    cold_experts,
    cold_thresholds,
)
from moetui.stats.difference import difference, sign_flip
from moetui.stats.divergence import hellinger, kl_divergence, kl_divergences, log_softmax
from moetui.stats.equivalence import EquivalenceTest, equivalent
from moetui.stats.information import (
    DomainInformation,
    DomainTest,
    MutualInformation,
    domain_information,
    domain_test,
    expected_jensen_shannon,
    jensen_shannon,
    mutual_information,
    plug_in_information,
)
from moetui.stats.jackknife import DocumentGroups, document_groups, shared_mean
from moetui.stats.joint import Joint, Strata, association, joint_counts
from moetui.stats.load import LoadIndices, load_indices
from moetui.stats.mantel import mantel, partial_mantel, rank_correlation
from moetui.stats.minimum import Minimum
from moetui.stats.nested import widened
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
from moetui.stats.permutation import (
    Family,
    benjamini_hochberg,
    extreme_draws,
    family_test,
    permutation_p,
    permutation_test,
)
from moetui.stats.rate import binary_design_effect, design_effect, rate, wilson
from moetui.stats.shuffle import movable_share, token_stratified_shuffle, within_document_shuffle
from moetui.stats.statistic import APPROXIMATE, MIN_DOCUMENTS, Statistic, finite, joined
from moetui.stats.strata import DocumentStrata, domain_strata, mixed_rates
from moetui.stats.subsets import Subsets, fit_subsets

__all__ = [
    "APPROXIMATE",
    "MIN_DOCUMENTS",
    "CacheUse",
    "CoActivation",
    "ColdVerdicts",
    "Coldness",
    "DocumentGroups",
    "DocumentStrata",
    "DomainInformation",
    "DomainTest",
    "EquivalenceTest",
    "Estimator",
    "ExpertLoad",
    "Family",
    "Intervals",
    "Joint",
    "LoadIndices",
    "Minimum",
    "MutualInformation",
    "PairedAccuracy",
    "PrefetchUse",
    "Statistic",
    "Strata",
    "Subsets",
    "Threshold",
    "association",
    "belady",
    "benjamini_hochberg",
    "binary_design_effect",
    "central_band",
    "co_activation",
    "cold_experts",
    "cold_thresholds",
    "design_effect",
    "difference",
    "document_bootstrap",
    "document_groups",
    "document_intervals",
    "domain_information",
    "domain_strata",
    "domain_test",
    "equivalent",
    "expected_jaccard",
    "expected_jensen_shannon",
    "expected_overlap",
    "extreme_draws",
    "family_test",
    "finite",
    "fit_subsets",
    "hellinger",
    "jaccard",
    "jensen_shannon",
    "joined",
    "joint_counts",
    "kl_divergence",
    "kl_divergences",
    "lfu",
    "lift",
    "load_indices",
    "log_softmax",
    "lru",
    "lru_with_prefetch",
    "mantel",
    "marginal_preserving_null",
    "mcnemar",
    "mean_jaccard",
    "mixed_rates",
    "movable_share",
    "mutual_information",
    "overlap_chance",
    "partial_mantel",
    "permutation_p",
    "permutation_test",
    "plug_in_information",
    "rank_correlation",
    "rate",
    "ratio_of_sums",
    "set_overlap",
    "shared_mean",
    "sign_flip",
    "token_stratified_shuffle",
    "variation_chance",
    "widened",
    "wilson",
    "within_document_shuffle",
]
