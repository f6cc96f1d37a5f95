"""How much memory there is for a model, and how much was taken at most; told without mlx.

What a model needs: `moetui.model.budget`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from moetui.model.backend import Backend
from moetui.model.budget import available_memory

# What macOS lets the GPU of Apple silicon have: two thirds of small memories, else three quarters.
_METAL_SMALL = 36 << 30
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")


def room(backend: Backend) -> int | None:
    """Bytes that a model could take now; None when the system does not tell.

    What is available, and on Metal no more than the GPU may have; on CUDA what is free on the
    first card. `moetui.model.budget.on_device` says the same once mlx is there to be asked.
    """
    if backend == "cuda":
        return _cuda_free()
    free, total = available_memory(), total_memory()
    if backend == "cpu" or free is None or total is None:
        return free
    wired = _number(_output("sysctl", "-n", "iogpu.wired_limit_mb"))
    limit = wired << 20 if wired else total * 2 // 3 if total <= _METAL_SMALL else total * 3 // 4
    return min(free, limit)


def total_memory() -> int | None:
    """Bytes of memory of this machine; None when the system does not tell."""
    if sys.platform == "darwin":
        return _number(_output("sysctl", "-n", "hw.memsize"))
    try:
        lines = _MEMINFO.read_text("utf-8").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemTotal:")]
    return int(sizes[0]) * 1024 if sizes else None


def peak_memory() -> int:
    """The most bytes of memory that this process has held at once since it started.

    What a graphics card holds in memory of its own is not counted.
    """
    try:
        lines = _STATUS.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    # On Linux this would begin at what the process held that started this one.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cuda_free() -> int | None:
    query = ("--query-gpu=memory.free", "--format=csv,noheader,nounits")
    free = _number(_output("nvidia-smi", *query).partition("\n")[0])
    return None if free is None else free << 20


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _output(*command: str) -> str:
    """What a command prints; nothing where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
