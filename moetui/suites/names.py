"""The names under which suites are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

STUDIES: tuple[str, ...] = (
    "cold_experts",
    "circuits",
    "generation",
    "interference",
    "merging",
    "attention_routing",
    "context_attention_routing",
    "task_aware",
    "manipulation",
)
"""The studies of `moe_dynamics`, in the order in which they run; each is a suite by itself too."""

WHOLE: tuple[str, ...] = ("attention_router", "moe_routing_correlation", "moe_dynamics")
"""The three suites, which `all` stands for."""

NAMES: tuple[str, ...] = (*WHOLE, *STUDIES, "anatomy")
"""Everything that can be run."""

ALL = "all"
"""Stands for the three suites."""

Preset = Literal["quick", "full"]
"""Plans beside the default one: a look in minutes, and one of all experts and modes."""

MODULES: Mapping[str, str] = dict.fromkeys(STUDIES, "moe_dynamics")
"""The module of `moetui.suites` that makes a suite, where its name is another."""

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


def expanded(names: Sequence[str]) -> tuple[str, ...]:
    """The suites that are meant, each once, in the order in which they were first named."""
    found = [one for name in names for one in (WHOLE if name == ALL else (canonical(name),))]
    return tuple(dict.fromkeys(found))


def studied(suite: str) -> tuple[str, ...]:
    """Under which names results, sections and terms of `suite` are known: it, and its studies."""
    return (suite, *STUDIES) if suite == "moe_dynamics" else (suite,)


def canonical(name: str) -> str:
    """The name that is meant: a published one, or one with dashes for underscores."""
    return ALIASES.get(name, name.replace("-", "_"))
