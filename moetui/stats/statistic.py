"""The one form in which a number may be claimed: with its interval, its null and its size."""

from __future__ import annotations

import math

import msgspec

# Below this many documents no interval is given; below APPROXIMATE it is called approximate,
# because BCa covers about 0.90 instead of 0.95 there on sparse rates.
MIN_DOCUMENTS = 20
APPROXIMATE = 100


class Statistic(msgspec.Struct, frozen=True, kw_only=True):
    """A number with everything that is needed to judge it. What is not known is None.

    value: the estimate, in the unit of the field that holds it.
    ci_low, ci_high: 95 % interval, by bootstrap over documents unless `caveat` says otherwise.
    null_mean, null_low, null_high: mean and central 95 % of the value under chance.
    p: permutation p-value unless `caveat` says otherwise, in (0, 1]; q: the same, adjusted for a
    family of tests.
    n_tokens, n_documents: size; a document is the independent unit (chapter, page, prompt).
    n_effective: how many independent tokens carry as much information (n / design effect).
    seed: of the random draws behind the interval and the null.
    caveat: what a reader must know before quoting the value.

    Raises ValueError where a number is NaN or infinite: missing is None, never a fake number.
    """

    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    null_mean: float | None = None
    null_low: float | None = None
    null_high: float | None = None
    p: float | None = None
    q: float | None = None
    n_tokens: int | None = None
    n_documents: int | None = None
    n_effective: float | None = None
    seed: int | None = None
    caveat: str | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            number = getattr(self, name)
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name} is {number}: missing is None, never a fake number")
        for probability in (self.p, self.q):
            if probability is not None and not 0 < probability <= 1:
                raise ValueError(f"a permutation p-value lies in (0, 1], not {probability}")


def finite(number: float) -> float | None:
    """`number` as a plain float, None where it is NaN or infinite."""
    return float(number) if math.isfinite(number) else None


def joined(*caveats: str | None) -> str | None:
    """Several caveats as one sentence list, None where there is none."""
    return "; ".join(c for c in caveats if c) or None
