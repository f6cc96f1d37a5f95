"""The machine as moetui finds it: packages, settings, mlx, BLAS, memory, models, self-test."""

from __future__ import annotations

import re
import shutil
import sys
from functools import lru_cache
from importlib import metadata
from platform import machine, python_version
from typing import TYPE_CHECKING

from moetui.cli.doctor_report import Check
from moetui.sizes import size_text

if TYPE_CHECKING:
    from moetui.model.health import Device

_PACKAGES = ("mlx", "mlx-lm", "transformers", "textual")
_SCARCE = 1e9
_CUDA = "pip uninstall -y mlx-cpu && pip install 'mlx[cuda13]'"


def versions() -> Check:
    """Python and the packages that moetui stands on, against what it asks for."""
    found: dict[str, str | None] = {name: _version(name) for name in _PACKAGES}
    asked = _minimum_versions()
    bad = [n for n, v in found.items() if v is None or _numbers(v) < asked.get(n, ())]
    names = [f"python {python_version()}"]
    names += [f"{name} {version or 'missing'}" for name, version in found.items()]
    return Check(
        name="versions",
        status="problem" if bad else "ok",
        found=", ".join(names),
        advice=f"pip install -U {' '.join(bad)}" if bad else None,
        facts={"python": python_version(), **found},
    )


def settings() -> Check:
    """Whether the settings file, if there is one, can be used. Raises SettingsError if not."""
    from moetui.settings import load_settings, settings_path
    from moetui.tui.keys import remapped

    path = settings_path()
    read = load_settings(path)
    remapped(read.keys)
    there = read.source is not None
    return Check(
        name="settings",
        status="ok",
        found=f"{path} is valid" if there else f"none ({path}): defaults hold",
        facts={"path": str(path), "exists": there},
    )


def backend() -> Check:
    """Where mlx computes. Raises RunFailedError when it cannot be imported."""
    device = _device()
    idle_card = device.backend == "cpu" and shutil.which("nvidia-smi") is not None
    return Check(
        name="mlx",
        status="attention" if idle_card else "ok",
        found=f"{device.backend.upper() if device.backend != 'metal' else 'Metal'}, {device.name}",
        advice=f"there seems to be an NVIDIA card: {_CUDA}" if idle_card else None,
        facts={"backend": device.backend, "device": device.name},
    )


def speed() -> Check:
    """How fast float32 matrices are multiplied, and on Linux CPUs by which BLAS."""
    from moetui.model.health import Speed, measure

    measured = measure(Speed)
    facts: dict[str, str | float | None] = {
        "gflops": round(measured.gflops, 1),
        "blas": measured.loaded_blas,
    }
    rate = f"{measured.gflops:.3g} GFLOP/s in float32"
    if _device().backend != "cpu" or sys.platform != "linux":
        return Check(name="speed", status="ok", found=rate, facts={**facts})
    if measured.loaded_blas is not None:
        return Check(
            name="BLAS", status="ok", found=f"{measured.loaded_blas}: {rate}", facts={**facts}
        )
    return Check(
        name="BLAS",
        status="attention",
        found=f"the reference BLAS of mlx's wheel: {rate}",
        advice=_faster_blas(),
        facts={**facts},
    )


def memory() -> Check:
    """How much there is, how much is free, and how much of it mlx may use."""
    from moetui.model.memory import room, total_memory

    device = _device()
    total, free = total_memory(), room(device.backend)
    parts = [
        f"{size_text(size)} {what}" for size, what in ((total, "in all"), (free, "free")) if size
    ]
    if device.usable_bytes is not None:
        parts.append(f"{size_text(device.usable_bytes)} for {device.backend}")
    scarce = free is not None and free < _SCARCE
    return Check(
        name="memory",
        status="attention" if scarce or free is None else "ok",
        found=", ".join(parts) or "the system does not tell",
        advice="close other programs before opening a model" if scarce else None,
        facts={"total": total, "available": free, "usable": device.usable_bytes},
    )


def cache() -> Check:
    """What of the Hugging Face Hub is on this machine."""
    from moetui.model.places import hub_cache, scan_hub_cache

    path, found = hub_cache(), scan_hub_cache()
    if found is None:
        return Check(
            name="models",
            status="ok",
            found=f"no Hugging Face cache yet ({path})",
            facts={"path": str(path), "models": 0, "size": 0},
        )
    models = [repo for repo in found.repos if repo.repo_type == "model"]
    size = sum(repo.size_on_disk for repo in models)
    broken = len(found.warnings)
    said = f"{len(models)} in {path}, {size_text(size)}"
    return Check(
        name="models",
        status="attention" if broken else "ok",
        found=f"{said}; {broken} damaged" if broken else said,
        advice="`moetui models` says which; `hf download NAME` mends one" if broken else None,
        facts={"path": str(path), "models": len(models), "size": size, "damaged": broken},
    )


def self_test() -> Check:
    """The demo model loads and traces a prompt. Raises RunFailedError when it does not."""
    from moetui.model.health import SelfTest, measure

    test = measure(SelfTest)
    return Check(
        name="demo",
        status="ok",
        found=f"{test.layers} layers × {test.experts} experts, top-{test.top_k}: loaded and "
        f"{test.tokens} tokens traced in {test.seconds:.1f} s",
        facts={"tokens": test.tokens, "seconds": round(test.seconds, 2)},
    )


@lru_cache(maxsize=1)
def _device() -> Device:
    from moetui.model.health import Device, measure

    return measure(Device)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _minimum_versions() -> dict[str, tuple[int, ...]]:
    """Package → the version that moetui's own metadata ask for at least."""
    try:
        wanted = metadata.requires("moetui") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w-]+)(?:\[\w+\])?\s*>=\s*([\d.]+)", line) for line in wanted)
    return {match[1].lower(): _numbers(match[2]) for match in found if match}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _faster_blas() -> str:
    if machine() == "x86_64":
        return "pip install -e '.[fast]' (MKL, 0.7 GB): about ten times as fast on real models"
    return "install OpenBLAS (Debian: apt install libopenblas0): many times as fast on real models"
