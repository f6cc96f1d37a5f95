"""This process among those that `mlx.launch` started together (data parallel: no tensor is split).

Every process runs the same forward passes that it would run alone, each for its share of the
texts; only finished results travel between them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from moetui.errors import LostRankError, RunFailedError
from moetui.model.blas import import_mlx

# What mlx.launch (ring, JACCL, NCCL) and the launchers of MPI tell every process.
_RANK_VARIABLES = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
# Payloads travel in pieces: every process holds a piece of all others at a time.
_PIECE = 32 << 20


class Group:
    """The processes of one launch, often this one alone. rank: its number, 0 … size − 1."""

    def __init__(self, group: Any | None = None) -> None:
        self._group = group
        self._lost: LostRankError | None = None
        self.rank: int = group.rank() if group else 0
        self.size: int = group.size() if group else 1

    def gather(self, payload: bytes) -> list[bytes]:
        """Every process's payload, in the order of the ranks. All must call it, and wait for all.

        Raises LostRankError when one of the others has ended, now and at every later call.
        """
        if self.size == 1:
            return [payload]
        lengths = self._all(np.array([len(payload)], np.int64))[:, 0]
        longest = int(lengths.max())
        pieces: list[list[bytes]] = [[] for _ in range(self.size)]
        for start in range(0, longest, _PIECE):
            piece = np.zeros(min(_PIECE, longest - start), np.uint8)
            own = np.frombuffer(payload[start : start + len(piece)], np.uint8)
            piece[: len(own)] = own
            for found, row, length in zip(pieces, self._all(piece), lengths, strict=True):
                found.append(row[: max(0, int(length) - start)].tobytes())
        return [b"".join(found) for found in pieces]

    def _all(self, own: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """[size, len(own)]: the rows of all processes, which must be of one length."""
        import mlx.core as mx

        if self._lost is not None:
            raise self._lost  # mlx would wait without end for a connection that it has given up
        try:
            everyone = mx.distributed.all_gather(mx.array(own), group=self._group)
            mx.eval(everyone)
        except RuntimeError as error:
            self._lost = LostRankError(
                f"another process of this run has ended: {error}",
                "its own message says why; what was finished is taken up again with --resume",
            )
            raise self._lost from error
        return np.array(everyone).reshape(self.size, -1)


def ranks() -> Group:
    """The processes that this one was started with; where it was started alone, that is told
    without importing mlx.

    Waits until all are there. Raises RunFailedError where they cannot reach each other.
    """
    if not any(name in os.environ for name in _RANK_VARIABLES) or _launch_of_one():
        return Group()
    import_mlx()
    import mlx.core as mx

    try:
        return Group(mx.distributed.init())
    except RuntimeError as error:
        raise RunFailedError(
            f"the processes of this run cannot reach each other: {error}",
            "start them by mlx.launch; --starting-port chooses other ports",
        ) from error


def _launch_of_one() -> bool:
    """`mlx.launch -n 1` hands out an empty list of hosts, at which mlx would fail."""
    hosts = os.environ.get("MLX_HOSTFILE")
    try:
        return hosts is not None and not Path(hosts).read_text("utf-8").strip()
    except OSError:
        return False
