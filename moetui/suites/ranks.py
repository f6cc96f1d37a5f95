"""Several processes that share the parts of a run; one process is the usual case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from moetui.errors import MoetuiError, RunFailedError


class Ranks(Protocol):
    """This process among those that run the same plan."""

    @property
    def rank(self) -> int:
        """Its number, 0 … size − 1; 0 writes the result."""

    @property
    def size(self) -> int:
        """How many there are."""

    def gather(self, payload: bytes) -> list[bytes]:
        """Every rank's payload, in the order of the ranks; all must call it."""


class Alone:
    """The only process."""

    rank, size = 0, 1

    def gather(self, payload: bytes) -> list[bytes]:
        """Just the own one."""
        return [payload]


class _Share(msgspec.Struct, frozen=True):
    """What one rank has to give: its payload, or why it has none (message, hint)."""

    payload: bytes
    failure: tuple[str, str] | None


def shared(ranks: Ranks, make: Callable[[], bytes]) -> list[bytes]:
    """What `make` gives on every rank, in the order of the ranks.

    Where it raises on one of them, all raise, so that none waits for what will never come:
    the rank itself its own error, the others RunFailedError with its words.
    """
    if ranks.size == 1:
        return [make()]
    failure: Exception | None = None
    share = _Share(b"", None)
    try:
        share = _Share(make(), None)
    except MoetuiError as error:
        failure, share = error, _Share(b"", (error.message, error.hint))
    except Exception as error:  # a defect here must not leave the others waiting
        told = f"{type(error).__name__}: {error}"
        failure, share = error, _Share(b"", (told, "run again with `moetui --debug batch …`"))
    payloads = ranks.gather(msgspec.msgpack.encode(share))
    if failure is not None:
        raise failure
    shares = [msgspec.msgpack.decode(payload, type=_Share) for payload in payloads]
    for rank, other in enumerate(shares):
        if other.failure is not None:
            message, hint = other.failure
            raise RunFailedError(f"rank {rank}: {message}", hint)
    return [other.payload for other in shares]
