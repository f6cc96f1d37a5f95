"""The key that goes to the dossier of an expert, and there makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moetui.suites.dossier import dossier_study
from moetui.trace import Engine, Phase
from moetui.tui.layout import DOSSIER, ORDER
from moetui.tui.panes.reasons import no_routing

if TYPE_CHECKING:
    from textual.screen import Screen

    from moetui.tui.session import Session
    from moetui.tui.workspace import Workspace

    Base = Screen[None]
else:
    Base = object


class DossierActions(Base):
    """The part of the explorer's screen behind `d`."""

    session: Session
    workspace: Workspace
    _engine: Engine

    def _focus_pane(self, number: int | None) -> None:
        raise NotImplementedError

    def _suite_in_the_way(self) -> bool:
        raise NotImplementedError

    def action_dossier(self) -> None:
        """Go to the pane; there already, make the dossier of the expert under the cursor."""
        if self.workspace.active.pane_id != DOSSIER:
            self._focus_pane(ORDER.index(DOSSIER) + 1)
        elif not self._suite_in_the_way():
            self._make_dossier()

    def _make_dossier(self) -> None:
        moment = self.session.moment
        model, cursor = moment.snapshot.model, moment.cursor
        if model is None or not model.is_moe:
            self.notify(no_routing(moment), severity="warning", markup=False)
        elif cursor.layer not in model.moe_layers:
            told = f"layer {cursor.layer} is dense: it has no expert to look at"
            self.notify(told, severity="warning", markup=False)
        elif self.session.latest.phase in (Phase.RUNNING, Phase.LOADING):
            told = "the engine is busy: Esc stops what it does, or wait for its end"
            self.notify(told, severity="warning", markup=False)
        else:
            self._engine.study(dossier_study(cursor.layer, cursor.expert))
