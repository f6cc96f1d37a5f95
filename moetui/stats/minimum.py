"""The sizes that a kind of claim needs: a warning below them, no verdict below a tenth of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from moetui.stats.statistic import Statistic, joined

Sufficiency = Literal["ok", "below the minimum", "inconclusive"]

# Below this part of a minimum a corrected verdict is not given at all.
LEAST = 0.1


class Minimum(msgspec.Struct, frozen=True):
    """What a kind of claim needs.

    what: the kind of claim. needs: sizes by unit (spaces of a unit are underscores in the calls
    below). any_of: one of the sizes is enough, instead of all of them.
    """

    what: str
    needs: dict[str, int]
    any_of: bool = False

    def __str__(self) -> str:
        return self.told(self.needs)

    def told(self, units: Collection[str]) -> str:
        """What it needs of these units, in words."""
        told = (f"{size:,} {unit}" for unit, size in self.needs.items() if unit in units)
        return (" or " if self.any_of else " and ").join(told)


LOAD = Minimum("load and cold experts at 1 %", {"effective tokens": 3000, "documents": 30})
DOMAIN = Minimum(
    "Jensen-Shannon divergence and information of domains", {"tokens per domain": 2000}
)
LAYER_INFORMATION = Minimum("mutual information of two layers of 64 experts", {"tokens": 20_000})
DECOMPOSITION = Minimum(
    "decomposition of router logits", {"documents": 100, "tokens": 5000}, any_of=True
)
PROBE = Minimum("a probe", {"items per class": 100, "templates": 5})
ACCURACY_PAIRS = Minimum("a difference of 10 points in accuracy", {"paired items": 155})
ABLATION = Minimum("ΔNLL of one expert", {"documents": 200})
PREDICTION = Minimum("a prediction of experts", {"documents": 100, "tokens": 2000})
SIMILARITY = Minimum("representational similarity", {"contexts": 30})
ANSWERS = Minimum("right against wrong answers", {"items right": 100, "items wrong": 100})

MINIMA = (
    LOAD,
    DOMAIN,
    LAYER_INFORMATION,
    DECOMPOSITION,
    PROBE,
    ACCURACY_PAIRS,
    ABLATION,
    PREDICTION,
    SIMILARITY,
    ANSWERS,
)


def enough(minimum: Minimum, **sizes: float) -> Sufficiency:
    """Whether the sizes reach `minimum`: ``enough(LOAD, effective_tokens=900, documents=40)``.

    "below the minimum" asks for a warning; "inconclusive", below a tenth, for no verdict. Raises
    ValueError where the sizes are not those that the minimum names.
    """
    reached = [
        size / need for size, need in zip(_sizes(minimum, sizes), _needs(minimum), strict=True)
    ]
    decisive = max(reached) if minimum.any_of else min(reached)
    if decisive >= 1:
        return "ok"
    return "below the minimum" if decisive >= LEAST else "inconclusive"


def warning(minimum: Minimum, **sizes: float) -> str | None:
    """What a reader must be told of the sizes that fall short, None where they are enough."""
    found = enough(minimum, **sizes)
    if found == "ok":
        return None
    least, part = ("below a tenth of", LEAST) if found == "inconclusive" else ("below", 1.0)
    short = {
        unit: size
        for (unit, need), size in zip(minimum.needs.items(), _sizes(minimum, sizes), strict=True)
        if size / need < part
    }
    told = " and ".join(f"{int(size):,} {unit}" for unit, size in short.items())
    return f"{told}: {least} the minimum size of {minimum.told(short)}"


def warned(statistic: Statistic, minimum: Minimum, **sizes: float) -> Statistic:
    """The statistic with the warning put before its caveat."""
    told = joined(warning(minimum, **sizes), statistic.caveat)
    return msgspec.structs.replace(statistic, caveat=told)


def _needs(minimum: Minimum) -> list[int]:
    return list(minimum.needs.values())


def _sizes(minimum: Minimum, sizes: dict[str, float]) -> list[float]:
    """In the order of the minimum's own."""
    names = [unit.replace(" ", "_") for unit in minimum.needs]
    if set(names) != set(sizes):
        raise ValueError(f"{minimum.what} is measured in {', '.join(names)}")
    return [sizes[name] for name in names]
