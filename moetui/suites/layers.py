"""Which layers a suite reads: by number, or by a word that fits every model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from moetui.errors import UsageError
from moetui.trace import ModelInfo

Word = Literal["first", "mid", "last", "all"]
Number = Annotated[int, msgspec.Meta(ge=0)]
LayersAsked = Word | Annotated[tuple[Number | Word, ...], msgspec.Meta(min_length=1)]

MEANING = (
    "decoder layers by number, or `first`, `mid` (n // 2), `last`, `all` of those that route; a "
    "list of these or one of them"
)


def routing_layers(asked: LayersAsked, info: ModelInfo) -> tuple[int, ...]:
    """The decoder layers that `asked` means in a model, ascending, each once.

    Raises UsageError where a layer does not route.
    """
    return chosen_layers(asked, info.moe_layers, f"of {info.name} does not route", "routing")


def chosen_layers(
    asked: LayersAsked, among: Sequence[int], complaint: str, kind: str
) -> tuple[int, ...]:
    """Those of `among` (ascending, at least one) that `asked` means, ascending, each once.

    Raises UsageError, "layer 9 `complaint`", naming the `kind` of layers that there are.
    """
    words = {
        "first": [among[0]],
        "mid": [among[len(among) // 2]],
        "last": [among[-1]],
        "all": list(among),
    }
    chosen: set[int] = set()
    for one in (asked,) if isinstance(asked, str) else asked:
        if isinstance(one, str):
            chosen.update(words[one])
        elif one in among:
            chosen.add(one)
        else:
            raise UsageError(
                f"layer {one} {complaint}",
                f"its {kind} layers are {', '.join(map(str, among))}; or give first, mid, last, "
                "all",
            )
    return tuple(sorted(chosen))
