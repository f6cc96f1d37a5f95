"""A fast BLAS for mlx on Linux: the wheel links the reference one, ten times slower.

A library loaded with RTLD_GLOBAL before mlx is imported takes its place.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def load_fast_blas() -> str | None:
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
