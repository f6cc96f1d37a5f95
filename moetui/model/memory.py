"""How much memory a checkpoint's weights take once loaded, and how much there is. No mlx."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path

from moetui.model.backend import Backend
from moetui.model.config import Packing
from moetui.model.headers import Tensor, Tensors

_FLOATS = frozenset(("F64", "F32", "F16", "BF16"))
_ROOT = Path("/")
# What macOS lets the GPU of Apple silicon have: two thirds of small memories, else three quarters.
_METAL_SMALL = 36 << 30


def weight_bytes(tensors: Tensors, packing: Packing | None, backend: Backend) -> int:
    """Bytes of the weights as moetui loads them: on a CPU every number becomes float32; what is
    packed stays packed. Eight-bit floats that mlx-lm has no packed form for are unpacked."""
    return sum(_loaded(tensor, packing, backend) for tensor in tensors.values())


def available_memory(backend: Backend) -> int | None:
    """Bytes that a model could take now; None when the system does not tell.

    On Linux what the kernel calls available, or what control groups leave of it; on macOS also no
    more than the GPU may have; on CUDA what is free on the first card.
    """
    if backend == "cuda":
        return _cuda_free()
    if sys.platform == "darwin":
        return _mac_available(backend)
    return min(_linux_available(_ROOT), default=None)


def total_memory() -> int | None:
    """Bytes of memory of this machine; None when the system does not tell."""
    if sys.platform == "darwin":
        return _number(_output("sysctl", "-n", "hw.memsize"))
    return _meminfo(_ROOT, "MemTotal")


def _loaded(tensor: Tensor, packing: Packing | None, backend: Backend) -> int:
    if tensor.dtype in _FLOATS:
        return prod(tensor.shape) * 4 if backend == "cpu" else tensor.nbytes
    unpacked = tensor.dtype.startswith("F8") and (packing is None or packing.mode != "mxfp8")
    if unpacked:
        return prod(tensor.shape) * (4 if backend == "cpu" else 2)
    return tensor.nbytes


def _linux_available(root: Path) -> Iterator[int]:
    """Every bound there is: the machine's own, and one for every control group with a limit."""
    machine = _meminfo(root, "MemAvailable")
    if machine is not None:
        yield machine
    for group, limit, usage in _control_groups(root):
        allowed = _number(_text(group / limit))
        used = _number(_text(group / usage))
        if allowed is not None and used is not None:
            yield max(0, allowed - used + _reclaimable(group))


def _reclaimable(group: Path) -> int:
    """Pages of files that were only read: the kernel takes them back at any time."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)", _text(group / "memory.stat"), re.M)
    return int(found[1]) if found else 0


def _control_groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """(folder, file of the limit, file of the usage) of this process's groups and all above."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        group = top / path.strip("/")
        while group.is_relative_to(top):
            yield group, *names
            group = group.parent


def _mac_available(backend: Backend) -> int | None:
    """Free memory and what the system can take back, within what the GPU may have."""
    report = _output("vm_stat")
    page = re.search(r"page size of (\d+) bytes", report)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)", report, re.M)
    total = total_memory()
    if page is None or total is None:
        return None
    free = int(page[1]) * sum(map(int, pages))
    if backend == "cpu":
        return free
    wired = (_number(_output("sysctl", "-n", "iogpu.wired_limit_mb")) or 0) << 20
    return min(free, wired or (total * 2 // 3 if total <= _METAL_SMALL else total * 3 // 4))


def _cuda_free() -> int | None:
    query = ("--query-gpu=memory.free", "--format=csv,noheader,nounits")
    free = _number(_output("nvidia-smi", *query).partition("\n")[0])
    return None if free is None else free << 20


def _meminfo(root: Path, field: str) -> int | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", _text(root / "proc/meminfo"), re.M)
    return int(found[1]) * 1024 if found else None


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


def _output(*command: str) -> str:
    """What a command prints; nothing where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
