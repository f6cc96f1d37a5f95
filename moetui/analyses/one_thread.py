"""Small products on one thread."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any


def one_thread() -> AbstractContextManager[Any]:
    """Small problems are solved by one thread: several wait for each other most of the time on a
    busy machine, and add up in another order on one with more processors. With numpy's `@` nothing
    else of the process goes on meanwhile, the explorer's screen neither: one product of a
    millisecond took most of a second on two busy processors."""
    from threadpoolctl import threadpool_limits

    limit: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limit
