"""One process that loads mutants: `python -m tests.model.fuzz_worker SCRATCH`.

Seeds come in on standard input, one a line. For every seed one JSON object goes out: what the
mutant is before it is loaded, then what came of it. Memory is bounded, so that a mutant which asks
for too much fails here and not by bringing the machine down.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import moetui
from moetui.errors import ModelError
from tests.model import fuzz

ROOM = 2 << 30
MARK = "\x02"  # begins the lines that are this module's own
PROMPT = "Hello 12, aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"


def main() -> None:
    folder = Path(sys.argv[1]) / "mutant"
    moetui.load("demo").trace(PROMPT)  # everything is imported before memory is counted
    size = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    _say(ready=True)
    for line in sys.stdin:
        seed = int(line)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        made = {"seed": seed, "mutant": fuzz.make(seed, folder)}
        _say(**made)
        _say(**made, **_outcome(folder))


def _outcome(folder: Path) -> dict[str, str]:
    """ "loads", "clean" with the message, or "defect" with everything about it."""
    try:
        trace = moetui.load(folder).trace(PROMPT)
    except ModelError as error:
        if _out_of_memory(error):
            return {"result": "defect", "detail": f"out of memory: {error.message}"}
        if not (error.message + error.hint).isprintable() or len(error.message) > 600:
            return {"result": "defect", "detail": f"no clear line: {error.message!r}"}
        return {"result": "clean", "detail": error.message.replace(str(folder), "")}
    except BaseException:  # a panic of the tokenizers library is no Exception
        return {"result": "defect", "detail": traceback.format_exc()}
    if not np.isfinite(trace.logits).all() or np.isnan(trace.router_logits).any():
        return {"result": "defect", "detail": "loads, and computes NaN or infinite values"}
    return {"result": "loads", "detail": ""}


def _out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "alloc" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _status(field: str) -> int:
    """Bytes that the kernel counts for this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def _say(**fields: Any) -> None:
    print(MARK + json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
