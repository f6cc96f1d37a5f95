"""JSON Schema of everything that moetui writes, made from the very types that are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from moetui.analyses.fidelity import Fidelity
from moetui.cli.doctor_report import Report
from moetui.errors import UsageError
from moetui.model.inventory import Inventory
from moetui.suites.comparison import Comparison
from moetui.suites.parameters import nearest
from moetui.suites.plans import PlanDocument
from moetui.suites.results import AnalysisResult, SuiteResult
from moetui.trace import TraceDocument
from moetui.tui.export import PaneDocument, ScreenDocument
from moetui.tui.panes import PANES

_TEMPLATE = "#/$defs/{name}"
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def documents() -> dict[str, type]:
    """Name → type of every document: files first, then the parts that have a name of their own.

    result, plans: `moetui batch`; comparison: `compare`; trace, fidelity: `trace`; models, doctor:
    these commands; screen: the explorer's `E`; pane-…: its `e`; the rest are results of analyses.
    """
    found: dict[str, type] = {
        "result": SuiteResult,
        "plans": PlanDocument,
        "comparison": Comparison,
        "trace": TraceDocument,
        "fidelity": Fidelity,
        "models": Inventory,
        "doctor": Report,
        "screen": _screen(),
    }
    found |= {f"pane-{name}": _pane(name, view) for name, view in _views().items()}
    return found | _analyses()


def schema(name: str | None) -> dict[str, Any]:
    """The schema of one document, or of any of those that are files.

    Raises UsageError naming the nearest document.
    """
    known = documents()
    if name is not None and name not in known:
        raise UsageError(
            f"no document {name!r}",
            f"did you mean {nearest(name, tuple(known))}? see `moetui schema --list`",
        )
    inner = _analyses().keys()
    types = [known[name]] if name is not None else [known[n] for n in known if n not in inner]
    refs, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    _, exact = msgspec.json.schema_components([SuiteResult], ref_template=_TEMPLATE)
    told = {
        part: _ordered(found if part in exact else _loosened(found))
        for part, found in sorted(components.items())
    }
    root = dict(refs[0]) if name is not None else {"anyOf": list(refs)}
    return {"$schema": DRAFT, "title": name or "moetui", **root, "$defs": told}


def _loosened(part: Any) -> Any:
    """`part` of a schema with null wherever it wants a number: NaN is written as null, and the
    panes draw it where something is undefined. Results hold no NaN."""
    if isinstance(part, dict):
        if part.get("type") == "number":
            return {**part, "type": ["number", "null"]}
        return {name: _loosened(value) for name, value in part.items()}
    return [_loosened(value) for value in part] if isinstance(part, list) else part


def _ordered(part: Any) -> Any:
    """`part` with its alternatives in one order, so that a schema has the same bytes every time."""
    if isinstance(part, dict):
        found = {name: _ordered(value) for name, value in part.items()}
        if "anyOf" in found:
            found["anyOf"] = sorted(found["anyOf"], key=msgspec.json.encode)
        return found
    return [_ordered(value) for value in part] if isinstance(part, list | tuple) else part


def _analyses() -> dict[str, type]:
    """Results of analyses by their tag, the "type" in the JSON."""
    return {kind.__struct_config__.tag: kind for kind in get_args(AnalysisResult)}


def _views() -> Mapping[str, type]:
    """Pane → the type that it draws and exports."""
    found: dict[str, type] = {}
    for pane in PANES:
        told = get_type_hints(pane.view_of)["return"]
        found[pane.pane_id] = next(kind for kind in get_args(told) if kind is not type(None))
    return found


def _pane(name: str, view: type) -> type:
    """An export of that pane: PaneDocument with the types of the pane."""
    return _narrowed(
        PaneDocument,
        f"{name}_export",
        pane=Literal[name],
        view=view | None,
    )


def _screen() -> type:
    """An export of the whole screen: every pane's view under its name."""
    views = [(name, view | None) for name, view in _views().items()]
    return _narrowed(ScreenDocument, "screen_export", panes=msgspec.defstruct("views", views))


def _narrowed(document: type[msgspec.Struct], name: str, **types: Any) -> type:
    """`document` under another name, with more exact types in some of its fields."""
    hints = get_type_hints(document)
    fields = [(field, types.get(field, hints[field])) for field in document.__struct_fields__]
    return msgspec.defstruct(name, fields, namespace={"__doc__": document.__doc__})
