"""What mlx can do on this machine, found out in a process of its own.

A driver that aborts, a library that lacks an instruction of this processor, a load that hangs:
none of it may take the process down that asks. `measure(Device)` runs
`python -m moetui.model.health Device`, which prints one JSON object.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from moetui.errors import MoetuiError, RunFailedError
from moetui.model.backend import Backend, backend

_PATIENCE_S = 300.0
_PROMPT = "127 + 45 ="
_SIZE = 1024  # of the square matrices whose product is timed
_REPEATS = 3


class Device(msgspec.Struct, frozen=True, tag="device"):
    """Where mlx computes. memory_bytes: the device's; usable_bytes: what mlx should not exceed;
    both None where mlx does not tell."""

    backend: Backend
    name: str
    memory_bytes: int | None
    usable_bytes: int | None


class Speed(msgspec.Struct, frozen=True, tag="speed"):
    """Billions of floating-point operations a second in a float32 product of two 1,024 × 1,024
    matrices, the best of three; and the BLAS that `moetui.model.blas` loaded for it."""

    gflops: float
    loaded_blas: str | None


class SelfTest(msgspec.Struct, frozen=True, tag="self-test"):
    """The demo model was loaded and a prompt of `tokens` tokens traced, whose readings passed
    their own tests. answer: the token that the lens of the last layer reads."""

    tokens: int
    layers: int
    experts: int
    top_k: int
    answer: str
    seconds: float


class _Failed(msgspec.Struct, frozen=True, tag="failed"):
    message: str
    hint: str


Found = TypeVar("Found", Device, Speed, SelfTest)


def measure(what: type[Found], patience_s: float = _PATIENCE_S) -> Found:
    """Find out `what` in a new process.

    Raises RunFailedError with the reason: an import that fails, a signal, no end in `patience_s`.
    """
    # The same moetui, and nothing that happens to lie in the working directory.
    place = str(Path(__file__).parents[2])
    paths = [place, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, what.__name__],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunFailedError(
            f"no answer in {patience_s:.0f} s", "the machine may be very busy: try again"
        ) from error
    if done.returncode != 0:
        raise RunFailedError(_reason(done), "reinstall the packages: pip install -e .")
    answer = msgspec.json.decode(done.stdout, type=what | _Failed)
    if isinstance(answer, _Failed):
        raise RunFailedError(answer.message, answer.hint)
    return answer


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why the process ended: its signal, or the last line that it wrote."""
    if done.returncode < 0:
        return f"the process was ended by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else f"the process ended with code {done.returncode}"


def _device() -> Device:
    import mlx.core as mx

    info = mx.device_info()
    memory, usable = info.get("memory_size"), info.get("max_recommended_working_set_size")
    memory = memory or info.get("total_memory")
    return Device(
        backend=backend(),
        name=str(info.get("device_name") or info.get("architecture") or "unnamed"),
        memory_bytes=int(memory) if memory else None,
        usable_bytes=int(usable) if usable else None,
    )


def _speed() -> Speed:
    from moetui.model.blas import import_mlx

    loaded = import_mlx()
    import mlx.core as mx

    a = mx.random.normal((_SIZE, _SIZE), key=mx.random.key(0))
    mx.eval(a, a @ a)
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        mx.eval(a @ a)
        times.append(time.perf_counter() - start)
    return Speed(2 * _SIZE**3 / min(times) / 1e9, loaded)


def _self_test() -> SelfTest:
    from moetui.model.load import load

    start = time.perf_counter()
    model = load("demo")
    trace = model.trace(_PROMPT)
    seconds = time.perf_counter() - start
    info = model.info
    broken = info.decomposition_error or info.lens_error
    if broken is not None or trace.lens is None:
        raise RunFailedError(f"the demo model's own test fails: {broken}", "report this")
    return SelfTest(
        tokens=len(trace),
        layers=info.num_layers,
        experts=info.num_experts,
        top_k=info.top_k,
        answer=trace.lens.text[int(trace.lens.token_ids[-1, -1, 0])],
        seconds=seconds,
    )


_PROBES: dict[str, Callable[[], Device | Speed | SelfTest]] = {
    "Device": _device,
    "Speed": _speed,
    "SelfTest": _self_test,
}


def _main(name: str) -> None:
    """Print what the probe finds; what libraries print goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    found: Device | Speed | SelfTest | _Failed
    try:
        found = _PROBES[name]()
    except MoetuiError as error:
        found = _Failed(error.message, error.hint)
    os.write(answer, msgspec.json.encode(found))


if __name__ == "__main__":
    _main(sys.argv[1])
