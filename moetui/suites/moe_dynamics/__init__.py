"""The `moe_dynamics` suite: nine studies of what experts do, each also a suite by its own name.

Parameters of a study stand under its name in the whole suite (`merging.threshold`) and alone
where it runs by itself (`threshold`); those that all share stand beside them in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import msgspec

from moetui.suites.documents import Documents
from moetui.suites.moe_dynamics.dynamics import Dynamics
from moetui.suites.moe_dynamics.study import Setting, Shared, StudyModule
from moetui.suites.names import STUDIES, Preset
from moetui.suites.parameters import parameters_of

NAME = "moe_dynamics"
QUESTION = "What do the experts of a model do, and what would it be without some of them?"

# What --quick and --full make of the parameters that all studies share.
QUICK: Mapping[str, Any] = {"documents": 40, "calibration_documents": 40, "layers": ["mid"]}
FULL: Mapping[str, Any] = {
    "documents": 400,
    "calibration_documents": 400,
    "tokens": 128,
    "layers": "all",
}


def suite(
    parameters: Mapping[str, Any],
    *,
    corpus: str | Path | None = None,
    studies: Sequence[str] = STUDIES,
) -> Dynamics:
    """The `studies`, with `parameters`, on the documents of `corpus` (default: bundled).

    Raises UsageError for an unknown parameter, CorpusError for a corpus that is missing.
    """
    picked = tuple(name for name in STUDIES if name in studies)
    found = parameters_of(_whole(picked), parameters, NAME)
    own = {name: getattr(found, name) for name in picked}
    return _dynamics(NAME, QUESTION, found, own, corpus)


def study_suite(
    name: str, parameters: Mapping[str, Any], *, corpus: str | Path | None = None
) -> Dynamics:
    """The study `name` alone, as a suite. Raises as `suite` does."""
    kind = _module(name).Parameters
    found = parameters_of(_alone(name), parameters, name)
    own = kind(**{field: getattr(found, field) for field in kind.__struct_fields__})
    return _dynamics(name, "", found, {name: own}, corpus)


def preset(name: str, which: Preset) -> dict[str, Any]:
    """The parameters of the suite or study `name` that differ under `which`."""
    shared = dict(QUICK if which == "quick" else FULL)
    if name != NAME:
        return shared | _own_preset(name, which)
    return shared | {study: _own_preset(study, which) for study in STUDIES}


def _own_preset(name: str, which: Preset) -> dict[str, Any]:
    module = _module(name)
    return dict(module.QUICK if which == "quick" else module.FULL)


def _dynamics(
    name: str,
    question: str,
    parameters: msgspec.Struct,
    own: Mapping[str, msgspec.Struct],
    corpus: str | Path | None,
) -> Dynamics:
    from moetui.suites.corpus import open_corpus

    open_corpus(corpus, "evaluation")
    shared = Shared(**{field: getattr(parameters, field) for field in Shared.__struct_fields__})
    setting = Setting(
        shared=shared,
        evaluation=Documents(
            corpus, "evaluation", documents=shared.documents, tokens=shared.tokens
        ),
        calibration=Documents(
            corpus, "calibration", documents=shared.calibration_documents, tokens=shared.tokens
        ),
        corpus=corpus,
    )
    studies = [_module(one).study(parameters, setting) for one, parameters in own.items()]
    return Dynamics(name, question or studies[0].question, parameters, studies, setting)


def _module(name: str) -> StudyModule:
    return cast(StudyModule, import_module(f"{__name__}.{name}"))


def _whole(names: Sequence[str]) -> type[msgspec.Struct]:
    """Parameters with a field for every study."""
    kinds = {name: _module(name).Parameters for name in names}
    fields = [(name, kind, msgspec.field(default_factory=kind)) for name, kind in kinds.items()]
    return _struct("Parameters", fields)


def _alone(name: str) -> type[msgspec.Struct]:
    """Parameters of one study beside those that all share."""
    kind = _module(name).Parameters
    hints = {field.name: field for field in msgspec.structs.fields(kind)}
    return _struct("Parameters", [(f, one.type, _default(one)) for f, one in hints.items()])


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory)
    return field.default


def _struct(name: str, fields: Sequence[tuple[str, Any, Any]]) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        name,
        list(fields),
        bases=(Shared,),
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )
