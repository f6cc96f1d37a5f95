"""The names under which suites are run."""

from __future__ import annotations

from collections.abc import Mapping

STUDIES: tuple[str, ...] = ("manipulation",)
"""The studies of `moe_dynamics`, in the order in which they run; each is a suite by itself too."""

WHOLE: tuple[str, ...] = ("attention_router", "moe_routing_correlation", "moe_dynamics")
"""The three suites, which `all` stands for."""

NAMES: tuple[str, ...] = (*WHOLE, *STUDIES)
"""Everything that can be run."""

# What the published experiments call them.
ALIASES: Mapping[str, str] = {
    "expert-circuits": "circuits",
    "generation-dynamics": "generation",
    "expert-interference": "interference",
    "expert-merging": "merging",
    "attention-prediction": "attention_routing",
    "task-prediction": "task_aware",
    "routing-manipulation": "manipulation",
}


def canonical(name: str) -> str:
    """The name that is meant: a published one, or one with dashes for underscores."""
    return ALIASES.get(name, name.replace("-", "_"))
