"""Why a pane is empty, and what would change that: the same sentences in every pane."""

from __future__ import annotations

from moetui.trace import Phase
from moetui.tui.moment import Moment


def nothing_yet(moment: Moment) -> str:
    """No model or no token yet."""
    if moment.snapshot.phase is Phase.LOADING:
        return "The model is loading."
    if moment.snapshot.phase is Phase.RUNNING:
        return "The prompt is being read."
    if moment.snapshot.model is None:
        return "No model yet. Press o to choose one."
    return "Nothing has run yet. Press / to type a prompt, Enter runs it."


def no_routing(moment: Moment) -> str:
    """The reason for panes about routing."""
    model = moment.snapshot.model
    if model is not None and model.routing_error is not None:
        return sentence(model.routing_error)
    if model is not None and not model.is_moe:
        return (
            f"{model.name} has no routers: it is a dense model, so there are no experts to choose. "
            "The logit lens works."
        )
    return nothing_yet(moment)


def sentence(reason: str) -> str:
    """What a self-test says, as a pane says it."""
    return f"{reason[:1].upper()}{reason[1:]}."
