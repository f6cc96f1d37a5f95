"""Giving memory back between two models that need not fit side by side."""

from __future__ import annotations


def free_unused() -> None:
    """Free what nothing refers to any more, and the buffers that mlx keeps for reuse.

    Modules and their taps refer to each other, so a dropped model waits for the collector.
    """
    import gc

    import mlx.core as mx

    gc.collect()
    mx.clear_cache()
