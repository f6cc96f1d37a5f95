"""Peak memory and time of `moetui batch` against the size of its corpus: 1×, 10×, 100×.

    python -m tests.benchmarks.corpus_memory [SUITE...]

The corpora are the bundled evaluation documents again and again, each copy with a number of its
own in front, so that no two documents are equal.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from moetui.demo import corpus

SCALES = (1, 10, 100)
# Copies of the bundled split (0.2 MB) in the smallest corpus.
COPIES = 8


def write(path: Path, copies: int) -> int:
    """A JSONL corpus of that many copies; its size in bytes."""
    documents = list(corpus("evaluation"))
    with path.open("wb") as file:
        for copy in range(copies):
            for document in documents:
                row = {"text": f"{copy} {document.text}", "domain": document.domain}
                file.write(msgspec.json.encode(row) + b"\n")
    return path.stat().st_size


def peak(arguments: list[str], cwd: str) -> tuple[float, float]:
    """Peak resident memory (MB) and wall time (s) of one `moetui batch`."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "moetui", "batch", *arguments, "--progress", "off"],
        cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"moetui batch ended with {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e6, time.perf_counter() - begun


def main() -> None:
    """Print a row for every scale."""
    suites = sys.argv[1:] or ["attention_router"]
    with tempfile.TemporaryDirectory() as folder:
        print("scale  corpus (MB)  peak memory (MB)  time (s)")
        for scale in SCALES:
            path = Path(folder) / f"{scale}.jsonl"
            size = write(path, COPIES * scale) / 1e6
            memory, seconds = peak([*suites, "--corpus", str(path)], folder)
            print(f"{scale:4}×  {size:11.1f}  {memory:16.0f}  {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
