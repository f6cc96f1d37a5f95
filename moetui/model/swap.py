"""Another value in the place of a parameter or an attribute, for as long as a pass runs."""

from __future__ import annotations

from typing import Any


class Swap:
    """Puts `value` in the place of `owner`'s parameter or attribute `name` while attached.

    A module keeps its parameters as a dictionary's entries, everything else as attributes.
    """

    def __init__(self, owner: Any, name: str, value: Any) -> None:
        self._name, self._value = name, value
        is_entry = isinstance(owner, dict) and name in owner
        self._held: dict[str, Any] = owner if is_entry else vars(owner)
        self._before = self._held[name]

    def attach(self) -> None:
        """Put the new value there."""
        self._before = self._held[self._name]
        self._held[self._name] = self._value

    def detach(self) -> None:
        """Put the value back that was there before."""
        self._held[self._name] = self._before
