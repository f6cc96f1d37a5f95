"""`moetui batch` as a process, its suite attention_router replaced by one that only counts.

Command line, runner, models and files are the real ones; so a run takes moments, and a test can
make it as long as it likes: python -m tests.cli.batch_worker ARGUMENTS OF batch.
"""

from __future__ import annotations

import sys
from types import ModuleType

import msgspec
import numpy as np

from moetui.cli import run
from moetui.suites.plan import Part
from tests.suites.toy import Count, Ids, Texts, ToySuite

# A text that is read again and again, so that its cell never ends.
ENDLESS = "and so on"


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """texts: how many short ones; endless: whether one more never ends."""

    models: tuple[str, ...] = ("demo",)
    texts: int = 6
    endless: bool = False


class Tokens(Count):
    """The token ids of real traces."""

    def read(self, model, part: Part, needs, *, seed, step) -> Ids:
        assert isinstance(part.inputs, Texts)
        ids = []
        for done, text in enumerate(part.inputs.texts, 1):
            ids.append(model.trace(text, lens=0).token_ids)
            step(done, len(part.inputs.texts))
            while text == ENDLESS:
                model.trace(text, lens=0)
        return Ids(np.concatenate(ids), np.zeros(0))


def suite(parameters, *, corpus=None) -> ToySuite:
    """What stands in for `moetui.suites.attention_router.suite`."""
    settings = msgspec.convert(parameters, Parameters)
    texts = [f"{number} + {number} =" for number in range(settings.texts)]
    made = ToySuite(settings.models, (*texts, *[ENDLESS] * settings.endless))
    made.name, made.analyses = "attention_router", (Tokens(made.parameters.texts),)
    made.parameters = settings
    return made


def main() -> None:
    stand_in = ModuleType("moetui.suites.attention_router")
    stand_in.suite = suite
    sys.modules[stand_in.__name__] = stand_in
    sys.exit(run(["batch", "attention_router", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
