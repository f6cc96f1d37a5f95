"""How mlx is imported: with a fast BLAS on Linux, and never halfway.

The wheel links the reference BLAS, ten times slower; a library loaded with RTLD_GLOBAL before mlx
is imported takes its place.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


def import_mlx() -> str | None:
    """Import mlx; the name of the BLAS that was loaded before it, None for its own.

    Ctrl-C is held back meanwhile: mlx aborts the process where it strikes inside.
    """
    with _interrupts_held():
        loaded = _load_fast_blas()
        import mlx.core  # noqa: F401
    return loaded


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """An interrupt that comes in here is raised at the end. On other threads than the main one
    none ever is."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])


def _load_fast_blas() -> str | None:
    """Load MKL (extra `fast`) or else the system's OpenBLAS; the name of what was loaded.

    Does nothing off Linux, when mlx is already imported, or beside torch, which brings its own
    and becomes many times slower with two.
    """
    if sys.platform != "linux" or "mlx.core" in sys.modules or "torch" in sys.modules:
        return None
    # Results must repeat: without it MKL may choose another code path for the same shapes.
    os.environ.setdefault("MKL_CBWR", "AUTO")
    for library in _candidates():
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return Path(library).name
    return None


def _candidates() -> Iterator[str]:
    for path in sorted((Path(sys.prefix) / "lib").glob("libmkl_rt.so*"), reverse=True):
        yield str(path)
    yield from ("libopenblas.so.0", "libopenblas.so")
