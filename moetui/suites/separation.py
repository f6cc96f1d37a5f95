"""Which numbers tell a trained model from the same architecture with random weights.

A number that does not is no finding about training, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from moetui.stats import Statistic, difference, joined, sign_flip
from moetui.suites.results import Measure, ModelRecord, Separation, SeparationVerdict

# Level of the test where there are units and no intervals.
LEVEL = 0.05
ONE_DRAW = "one draw of random weights; how far draws differ is not in the interval"


def separation(
    measures: Sequence[Measure], models: Sequence[ModelRecord], *, seed: int
) -> tuple[Separation, ...]:
    """Every measure of a trained model against each of its null models."""
    of_null = [(record.null_of, record.name) for record in models if record.null_of is not None]
    return tuple(
        separate(measure, other, null_model=null, seed=seed)
        for trained, null in of_null
        for measure in measures
        if measure.model == trained
        for other in [_same(measure, null, measures)]
    )


def separate(trained: Measure, null: Measure | None, *, null_model: str, seed: int) -> Separation:
    """One measure against the same of a null model; None where that has none.

    By the 95 % interval of the difference where both have intervals; else, where both have the
    same units, by a sign-flip permutation over them.
    """
    if null is None:
        nothing = Statistic(caveat=f"{null_model} has no such number")
        return _said(trained, null_model, nothing, nothing, "inconclusive", nothing.caveat)
    found = compared(trained, null, seed=seed)
    verdict, reason = judged(found)
    noted = msgspec.structs.replace(found, caveat=joined(found.caveat, ONE_DRAW))
    return _said(trained, null_model, null.statistic, noted, verdict, reason)


def compared(one: Measure, other: Measure, *, seed: int) -> Statistic:
    """one − other, with an interval, or with a p where only units can be compared."""
    found = difference(one.statistic, other.statistic)
    both = one.units is not None and other.units is not None
    if found.ci_low is not None or found.value is None or not both:
        return found
    pairs = list(zip(one.units or (), other.units or (), strict=False))
    if len(one.units or ()) != len(other.units or ()):
        return found
    p = sign_flip([a - b for a, b in pairs], seed=seed)
    return msgspec.structs.replace(
        found,
        p=p,
        n_documents=len(pairs),
        seed=seed,
        caveat="p by sign-flip permutation over prompts (over layers, where the weights alone are "
        "read); too few for an interval",
    )


def judged(found: Statistic) -> tuple[SeparationVerdict, str | None]:
    """Verdict on a difference, and the reason where it is inconclusive."""
    if found.ci_low is not None and found.ci_high is not None:
        apart = found.ci_low > 0 or found.ci_high < 0
        return ("separates" if apart else "does not separate"), None
    if found.p is not None and found.p <= LEVEL:
        return "separates", None
    if found.p is not None:
        n = found.n_documents or 0
        # Of 2^n signs two are most extreme: whatever was found, it could not have separated.
        hopeless = 2.0 ** (1 - n) > LEVEL
        reason = f"{n} prompts are too few to reach p ≤ {LEVEL}" if hopeless else None
        return ("inconclusive" if hopeless else "does not separate"), reason
    return "inconclusive", found.caveat or "no interval, and no prompts to compare one by one"


def _same(measure: Measure, model: str, measures: Sequence[Measure]) -> Measure | None:
    alike = (
        other
        for other in measures
        if (other.model, other.label, other.name) == (model, measure.label, measure.name)
    )
    return next(alike, None)


def _said(
    trained: Measure,
    null_model: str,
    null: Statistic,
    found: Statistic,
    verdict: SeparationVerdict,
    reason: str | None,
) -> Separation:
    return Separation(
        model=trained.model,
        null_model=null_model,
        label=trained.label,
        name=trained.name,
        trained=trained.statistic,
        null=null,
        difference=found,
        verdict=verdict,
        reason=reason,
    )
