"""Everything that a model says of how its routing could be made another one."""

from __future__ import annotations

from moetui.model.context_reading import ContextReading
from moetui.model.quantised import Quantised
from moetui.model.router_gradient import RouterGradient


class Steering(ContextReading, RouterGradient, Quantised):
    """Contexts tried in batches, slopes of routers, weights in fewer bits."""
