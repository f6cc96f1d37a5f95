"""A suite small enough to be followed by hand: it counts tokens, and nothing more.

The sum of the token ids over all texts is known in closed form, so whatever the runner does with
the parts (keep them, take them up again, share them) shows in the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.attention_router import CorpusDecomposition
from moetui.errors import ModelError
from moetui.stats import Statistic
from moetui.suites.models import ModelRef
from moetui.suites.plan import Outcome, Part
from moetui.suites.results import Measure, Verdict, Verdicts
from tests.builders import make_model_info


class Texts(msgspec.Struct, frozen=True):
    texts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Ids:
    ids: NDArray[np.int32]
    drawn: NDArray[np.float64]


class ToyModel:
    """A model whose trace of a text is its characters; `broken` texts raise what they name."""

    def __init__(self, name, *, broken=None, moe_layers=(0, 1)):
        self.info = make_model_info(name=name, moe_layers=moe_layers)
        self.broken = broken or {}
        self.read = []

    def ids(self, text):
        self.read.append(text)
        if text in self.broken:
            raise self.broken[text]
        return np.array([ord(c) for c in text], np.int32)


class ToyModels:
    """Opens the models given by name; exceptions are raised; `<name>` nulls exist for all."""

    def __init__(self, **models):
        self.models = models
        self.opened = []
        self.freed = 0

    def identity(self, ref):
        if ref.name not in self.models:
            raise ModelError(f"no model {ref.name!r}", "give a folder or org/name")
        return f"digest of {ref.label}"

    def nulls(self, name, *, seed):
        return (ModelRef(name, "own", seed),)

    def open(self, ref):
        self.opened.append(ref.label)
        found = self.models[ref.name]
        if isinstance(found, BaseException):
            raise found
        return ToyModel("x", moe_layers=found.info.moe_layers) if ref.initialisation else found

    def free(self):
        self.freed += 1


class Count:
    """Ids of the texts, two texts a part."""

    name, needs, partial_type = "count", (), Ids

    def __init__(self, texts):
        self.texts = texts

    def settings(self, *, seed):
        return None

    def unfit(self, info):
        return None if info.is_moe else "it has no routers"

    def parts(self, *, seed):
        pairs = [tuple(self.texts[i : i + 2]) for i in range(0, len(self.texts), 2)]
        return tuple(
            Part(name=f"texts {2 * i}", inputs=Texts(pair), tokens=sum(map(len, pair)))
            for i, pair in enumerate(pairs)
        )

    def read(self, model, part, needs, *, seed, step):
        ids = []
        for done, text in enumerate(part.inputs.texts, 1):
            ids.append(model.ids(text))
            step(done, len(part.inputs.texts))
        return Ids(np.concatenate(ids), np.random.default_rng(seed).normal(size=3))

    def reduce(self, info, partials, *, seed):
        total = int(sum(p.ids.sum() for p in partials))
        return Outcome(_result(total, info.name), None if total else "nothing to count")


class Again(Count):
    """What `Count` found, counted again: it needs the other's partials."""

    name, needs = "again", ("count",)

    def parts(self, *, seed):
        return (Part(name="all", inputs=None, tokens=0),)

    def read(self, model, part, needs, *, seed, step):
        counted = needs["count"]
        return Ids(np.concatenate([p.ids for p in counted]), np.zeros(0))


def _result(total, name):
    return CorpusDecomposition(
        corrected=None, reason=None, corpus=name, sampled=total, available=0, max_tokens=0,
        documents_digest="",
    )  # fmt: skip


class ToyParameters(msgspec.Struct, frozen=True, kw_only=True):
    models: tuple[str, ...]
    texts: tuple[str, ...]


class ToySuite:
    name, question, cost, published = "toy", "How many?", "nothing", ()

    def __init__(self, models, texts):
        self.models, self.parameters = tuple(models), ToyParameters(models=models, texts=texts)
        self.analyses = (Count(texts), Again(texts))

    def prompts_digest(self):
        return "digest"

    def measures(self, model, cells):
        found = [c.result.sampled for c in cells if c.result is not None and c.analysis == "count"]
        return tuple(
            Measure(
                model=model,
                label="corrected",
                name="total",
                statistic=Statistic(value=float(n), ci_low=n - 1.0, ci_high=n + 1.0),
            )
            for n in found
        )

    def conclude(self, cells):
        said = " ".join(f"{c.model}:{c.status}" for c in cells)
        verdict = Verdict(label="toy", outcome="x", statement=said, rule="none", evidence=())
        return (Verdicts(seed=verdict, corrected=verdict, why_they_differ="they do not"),)

    def caveats(self, cells):
        return ()
