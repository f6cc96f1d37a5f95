"""The checks that every suite makes on the model that it is about to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from moetui.analyses.sanity import SanitySums, sanity, sanity_sums
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.trace import Forward, ModelInfo


class SanityInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Texts, each cut to max_tokens tokens, and the layers as asked for."""

    texts: tuple[str, ...]
    max_tokens: int
    layers: LayersAsked


@dataclass(frozen=True, eq=False)
class SanityPart:
    """The checks of every text."""

    texts: tuple[SanitySums, ...]


class SanityAnalysis:
    """`moetui.analyses.sanity` over a few texts, as an analysis of a suite."""

    name = "sanity"
    needs: tuple[str, ...] = ()
    partial_type: Any = SanityPart

    def __init__(self, texts: Sequence[str], *, max_tokens: int, layers: LayersAsked) -> None:
        self._inputs = SanityInputs(texts=tuple(texts), max_tokens=max_tokens, layers=layers)

    def settings(self, *, seed: int) -> Any:
        """The layers."""
        return self._inputs.layers

    def unfit(self, info: ModelInfo) -> str | None:
        """A model that routes nowhere has no router to check."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """All texts in one."""
        return (Part(name="checks", inputs=self._inputs),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> SanityPart:
        """Every text is traced once, read once unwatched, and its routers are asked."""
        given: SanityInputs = part.inputs
        layers = routing_layers(given.layers, model.info)
        found = []
        for done, text in enumerate(given.texts, 1):
            ids = model.tokenize(text)[: given.max_tokens]
            found.append(sanity_sums(model, ids, layers, seed=seed))
            step(done, len(given.texts))
        return SanityPart(tuple(found))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """All checks; one that fails is said, the run goes on."""
        texts = [one for partial in partials for one in partial.texts]
        layers = routing_layers(self._inputs.layers, info)
        found = sanity(info, texts, layers, seed=seed)
        failed = "; ".join(found.failed)
        return Outcome(found, f"checks failed: {failed}" if failed else None)


def no_router(info: ModelInfo) -> str | None:
    """Why a model cannot be asked about its routers, None where it can."""
    if info.is_moe:
        return None
    return info.routing_error or f"no router: {info.name} is a dense model"
