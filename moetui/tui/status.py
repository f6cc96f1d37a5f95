"""The first line: which model, what the engine is doing, how fast, in how much memory."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widget import Widget

from moetui.analyses.expert_dossier import DossierSoFar
from moetui.analyses.what_if import WhatIf
from moetui.sizes import size_text
from moetui.trace import Ending, Phase, Snapshot
from moetui.trace.types import ModelInfo
from moetui.tui.change import control_count
from moetui.tui.moment import suite_run
from moetui.tui.text import plain

_PHASE_STYLES = {
    Phase.EMPTY: "$secondary",
    Phase.LOADING: "bold $warning",
    Phase.READY: "bold $success",
    Phase.RUNNING: "bold $accent",
    Phase.STUDYING: "bold $accent",
}
_DOT = Content.styled(" · ", "$secondary")
_BRAND = Content.styled(" moetui ", "bold reverse $primary on $background")


class StatusLine(Widget):
    """One line made from the newest snapshot; what does not fit is left out, least needed first."""

    def __init__(self, model: str) -> None:
        super().__init__(id="status")
        self._asked = model
        self._snapshot = Snapshot()
        self._paused, self._stopping = False, False

    def show(self, snapshot: Snapshot, paused: bool, stopping: bool) -> None:
        """Draw `snapshot`."""
        self._snapshot, self._paused, self._stopping = snapshot, paused, stopping
        self.refresh()

    def ask(self, model: str) -> None:
        """Name the model that is being loaded, until the engine knows it."""
        self._asked = model
        self.refresh()

    def render(self) -> Content:
        """The line, its left part about the model and its right part about the engine."""
        left = _BRAND + Content(" ")
        right = engine_part(self._snapshot, self._paused, self._stopping) + Content(" ")
        room = self.size.width - left.cell_length - right.cell_length - 2
        left += model_part(self._snapshot.model, self._asked, room)
        gap = max(1, self.size.width - left.cell_length - right.cell_length)
        return left + Content(" " * gap) + right


def model_part(model: ModelInfo | None, asked: str, room: int) -> Content:
    """What the model is, in at most `room` cells; the name itself is always there."""
    if model is None:
        return Content.styled(plain(asked), "bold")
    name = Content.styled(plain(model.name), "bold")
    shape = f"{model.num_layers} layers × {model.num_experts} experts"
    short = f"{model.num_layers} × {model.num_experts}"
    if not model.is_moe:
        shape = short = f"{model.num_layers} layers"
    rest = _facts(model)
    if _joined([name, Content(shape), Content(rest[0])]).cell_length > room:
        shape = short
    parts = [name, Content(shape), *map(Content, rest)]
    while len(parts) > 1 and _joined(parts).cell_length > room:
        parts.pop()
    return _joined(parts)


def engine_part(snapshot: Snapshot, paused: bool, stopping: bool = False) -> Content:
    """Phase, tokens per second, memory."""
    phase = snapshot.phase
    parts = [Content.styled("NO MODEL" if phase is Phase.EMPTY else phase, _PHASE_STYLES[phase])]
    if doing := "stopping" if stopping else _doing(snapshot):
        parts[0] += Content.styled(f" {plain(doing)}", "$secondary")
    if phase is Phase.READY and snapshot.ending is Ending.CANCELLED and snapshot.rows:
        parts.append(Content.styled("stopped", "$warning"))
    if paused:
        parts.append(Content.styled("VIEW PAUSED", "bold $warning"))
    # Without a token of this model, the speed would be that of the model before.
    if snapshot.tokens_per_second is not None and snapshot.rows:
        parts.append(Content(f"{snapshot.tokens_per_second:.1f} tok/s"))
    if snapshot.memory_bytes is not None:
        parts.append(Content(size_text(snapshot.memory_bytes)))
    return _joined(parts)


def _doing(snapshot: Snapshot) -> str:
    """How far the engine is with what it does."""
    if snapshot.phase is Phase.STUDYING and isinstance(snapshot.finding, WhatIf):
        return control_count(snapshot.finding)
    if snapshot.phase is Phase.STUDYING and isinstance(snapshot.finding, DossierSoFar):
        return f"{snapshot.finding.doing} {snapshot.finding.done}/{snapshot.finding.of}"
    if snapshot.phase is Phase.STUDYING and (run := suite_run(snapshot)) is not None:
        return f"{run.request.name} {run.done}/{run.cells} cells"
    return snapshot.detail


def _facts(model: ModelInfo) -> list[str]:
    """What to say of the model beside its size, the most needed first."""
    unread = "routing unread" if model.routing_error is not None else "dense"
    facts = [f"top-{model.top_k}" if model.is_moe else unread]
    if model.quantization:
        facts.append(plain(model.quantization))
    if model.router_bits:
        facts.append(f"router {model.router_bits} bits")
    return [*facts, plain(model.architecture), plain(model.dtype), plain(model.backend)]


def _joined(parts: Sequence[Content]) -> Content:
    return _DOT.join(parts)
