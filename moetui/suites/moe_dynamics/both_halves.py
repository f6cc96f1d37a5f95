"""Documents of both halves of the corpus in parts: those that fit, then those that judge."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from moetui.analyses.corpus_used import CorpusUsed
from moetui.demo import Split
from moetui.suites.documents import in_parts
from moetui.suites.moe_dynamics.routing import RoutingText
from moetui.suites.moe_dynamics.study import Setting
from moetui.suites.plan import Part

SPLITS: tuple[Split, Split] = ("calibration", "evaluation")
P = TypeVar("P", bound=msgspec.Struct)


def parts_of_both(setting: Setting, make: type[P], *, seed: int, **inputs: object) -> list[Part]:
    """Twenty-five documents each. `make` is the Struct of a part's inputs: it is given `split`,
    `documents`, `max_tokens` and what stands in `inputs`."""
    tokens, found = setting.shared.tokens, []
    for split, documents in zip(SPLITS, (setting.calibration, setting.evaluation), strict=True):
        for name, some in in_parts(documents.sample(seed).documents):
            texts = tuple(RoutingText(one.id, one.domain, one.text) for one in some)
            given = make(split=split, documents=texts, max_tokens=tokens, **inputs)
            found.append(Part(name=f"{split} {name}", inputs=given, tokens=len(some) * tokens))
    return found


def used_of_both(setting: Setting, *, seed: int) -> tuple[CorpusUsed | None, CorpusUsed | None]:
    """What is said of the half that fits and of the one that judges."""
    return setting.calibration.used(seed), setting.evaluation.used(seed)
