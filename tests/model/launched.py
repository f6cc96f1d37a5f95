"""What each process of a launch does, in a process of its own: python -m tests.model.launched."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import moetui
from moetui.errors import RunFailedError
from moetui.model.distributed import Group, ranks

SIZES = (0, 5, 40_000_003)


def payload(rank: int, size: int) -> bytes:
    """Bytes of rank `rank`, of another length than those of its neighbours."""
    block = hashlib.sha256(f"{rank}".encode()).digest()
    length = max(0, size - 7 * rank)
    return (block * (length // len(block) + 1))[:length]


def digests(payloads: list[bytes]) -> list[str]:
    return [hashlib.sha256(one).hexdigest() for one in payloads]


def gathered(group: Group) -> dict[str, object]:
    """Digests of what arrived, of several sizes, and of what all ranks computed."""
    arrived = [digests(group.gather(payload(group.rank, size))) for size in SIZES]
    logits = moetui.load("demo").trace("127 + 45 =", lens=0).logits
    assert logits is not None
    return {"arrived": arrived, "logits": digests(group.gather(logits.tobytes()))}


def bereaved(group: Group) -> dict[str, object]:
    """What is said when rank 1 ends without a word."""
    group.gather(b"here")
    if group.rank == 1:
        os._exit(3)
    return {"messages": [refusal(group) for _ in range(4)]}


def refusal(group: Group) -> str | None:
    try:
        group.gather(b"still here")
    except RunFailedError as error:
        return error.message
    return None


def main() -> None:
    task, folder = sys.argv[1:]
    found = ranks()
    told = {"size": found.size, **{"gather": gathered, "bereave": bereaved}[task](found)}
    (Path(folder) / f"{found.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
