"""How many experts a token uses: the numbers that model files read it from.

A block, its gate or its router keeps it as an attribute of its own, or looks it up in the
configuration that it was made from. Which attribute that is differs; so those are taken whose
name says so and whose value is the number of experts that the bank was seen to receive. Whether
they were the right ones is tried out (`moetui.model.interventions`), not believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import is_dataclass
from typing import Any

from moetui.model.architecture import Site
from moetui.model.swap import Swap

_NAMES_IT = re.compile(r"k|(moe_)?top_?k(_experts)?|num_experts_per_tok(en)?")


def with_top_k(site: Site, seen: int, k: int) -> list[Swap]:
    """What makes the experts of `site` k instead of `seen`; empty where no attribute says so.

    A configuration is shared by all layers: this site gets a copy that says k.
    """
    return list(_swaps(site, seen, k))


def _swaps(site: Site, seen: int, k: int) -> Iterator[Swap]:
    for module in {id(m): m for m in (site.block, site.gate, site.router)}.values():
        for name, value in vars(module).items():
            if _says(name, value, seen):
                yield Swap(module, name, k)
            elif is_dataclass(value) and (names := _fields(value, seen)):
                changed = copy(value)
                for field in names:
                    setattr(changed, field, k)
                yield Swap(module, name, changed)


def _fields(configuration: Any, seen: int) -> list[str]:
    return [name for name, value in vars(configuration).items() if _says(name, value, seen)]


def _says(name: str, value: Any, seen: int) -> bool:
    return _NAMES_IT.fullmatch(name) is not None and type(value) is int and value == seen
