"""Two suites that can be configured and do nothing else."""

from types import SimpleNamespace
from typing import Annotated, Literal

import msgspec
import pytest

import moetui.suites
from moetui.errors import UsageError
from moetui.suites.parameters import parameters_of

Count = Annotated[int, msgspec.Meta(ge=0)]


class First(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: Annotated[tuple[str, ...], msgspec.Meta(description="models to run on")] = ("demo",)
    layers: Annotated[tuple[Count, ...] | None, msgspec.Meta(description="decoder layers")] = None
    words: Annotated[dict[str, tuple[str, ...]], msgspec.Meta(description="task → words")] = (
        msgspec.field(default_factory=lambda: {"+": ("add", "yes", "1e3")})
    )
    threshold: Annotated[float, msgspec.Meta(gt=0, description="least probability")] = 0.1
    documents: Annotated[
        Count, msgspec.Meta(description="of the corpus, each once; 100 needed")
    ] = 9


class Second(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: Annotated[tuple[str, ...], msgspec.Meta(description="two models")] = ("demo", "dense")
    lens: Annotated[Literal["raw", "tuned"], msgspec.Meta(description="which lens")] = "raw"


KINDS = {"first_suite": First, "second_suite": Second}


def suite(name, parameters=None, *, corpus=None, preset=None, analyses=()):
    if name not in KINDS:
        raise UsageError(f"no suite {name!r}", "see --help")
    return SimpleNamespace(
        name=name,
        question=f"What of {name}?",
        cost="nothing",
        parameters=parameters_of(KINDS[name], parameters or {}, name),
        analyses=(),
        corpus=corpus,
    )


@pytest.fixture
def suites(monkeypatch):
    """`moetui.suites` knows these two, and no others."""
    monkeypatch.setattr(moetui.suites, "NAMES", tuple(KINDS))
    monkeypatch.setattr(moetui.suites, "suite", suite)
