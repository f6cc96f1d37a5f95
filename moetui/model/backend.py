"""Where mlx computes: on the CPU, on Metal or on CUDA."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Literal

Backend = Literal["cpu", "metal", "cuda"]
_CUDA_WHEELS = ("mlx-cuda-13", "mlx-cuda-12", "mlx-cuda")


def backend() -> Backend:
    """The backend of mlx's default device. Imports mlx."""
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def expected_backend() -> Backend:
    """What `backend` will say, told from the system and the installed wheels alone."""
    if sys.platform == "darwin":
        return "metal" if platform.machine() == "arm64" else "cpu"
    return "cuda" if any(map(_installed, _CUDA_WHEELS)) else "cpu"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
