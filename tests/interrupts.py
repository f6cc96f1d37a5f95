"""Ctrl-C pressed at a chosen line."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any


def interrupt_at(count: int, *files: str | None) -> None:
    """Have Ctrl-C pressed before the n-th line that is executed of these files; until then, or
    until `sys.settrace(None)`, nothing else may trace."""
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            seen += 1
            if seen == count:
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
