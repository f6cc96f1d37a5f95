"""How verdicts of studies put numbers into sentences, and several models into one outcome."""

from __future__ import annotations

from collections.abc import Mapping

from moetui.stats import MIN_DOCUMENTS, Statistic

INCONCLUSIVE = "inconclusive"
DIFFER = "models differ"


def told(statistic: Statistic | None) -> str:
    """Value and interval: "0.617 [0.612, 0.623]"."""
    if statistic is None or statistic.value is None:
        return "unknown"
    value = f"{statistic.value:.3f}"
    if statistic.ci_low is None or statistic.ci_high is None:
        return value
    return f"{value} [{statistic.ci_low:.3f}, {statistic.ci_high:.3f}]"


def limits(statistic: Statistic) -> tuple[float, float] | None:
    """The 95 % interval. Where documents are enough for one and every resample of them gives the
    same value, as where two predictors say the same of every token, that value twice."""
    if statistic.ci_low is not None and statistic.ci_high is not None:
        return statistic.ci_low, statistic.ci_high
    if statistic.value is None or (statistic.n_documents or 0) < MIN_DOCUMENTS:
        return None
    return statistic.value, statistic.value


def agreed(outcomes: Mapping[str, str]) -> str:
    """The outcome of all models, or that they differ; one that is inconclusive makes it so."""
    found = set(outcomes.values())
    if not found or INCONCLUSIVE in found:
        return INCONCLUSIVE
    return found.pop() if len(found) == 1 else DIFFER


def experts(k: int) -> str:
    """ "1 expert", "4 experts"."""
    return f"{k} expert" if k == 1 else f"{k} experts"
