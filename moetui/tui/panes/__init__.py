"""The panes, one file each; `PANES` in the order of their numbers."""

from moetui.tui.panes.cold_experts import ColdExpertsPane
from moetui.tui.panes.compare import ComparePane
from moetui.tui.panes.expert_dossier import ExpertDossierPane
from moetui.tui.panes.generation import GenerationPane
from moetui.tui.panes.layer_detail import LayerDetailPane
from moetui.tui.panes.logit_lens import LensPane
from moetui.tui.panes.pane import LinePane, Pane
from moetui.tui.panes.routing_map import RoutingMapPane
from moetui.tui.panes.suites import SuitesPane
from moetui.tui.panes.token_strip import TokenStripPane
from moetui.tui.panes.what_if import WhatIfPane
from moetui.tui.panes.why import WhyPane

PANES: tuple[type[Pane], ...] = (
    RoutingMapPane,
    WhyPane,
    LensPane,
    LayerDetailPane,
    ColdExpertsPane,
    TokenStripPane,
    ComparePane,
    WhatIfPane,
    SuitesPane,
    GenerationPane,
    ExpertDossierPane,
)

__all__ = [
    "PANES",
    "ColdExpertsPane",
    "ComparePane",
    "ExpertDossierPane",
    "GenerationPane",
    "LayerDetailPane",
    "LensPane",
    "LinePane",
    "Pane",
    "RoutingMapPane",
    "SuitesPane",
    "TokenStripPane",
    "WhatIfPane",
    "WhyPane",
]
