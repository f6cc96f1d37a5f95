"""Keeping what libraries print off standard output and error, which are moetui's own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType

_OUT, _ERR = 1, 2


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing written inside reaches standard output or error, not even by compiled code.

    The tokenizers library, in Rust, prints notes and panics by itself; files of mlx-lm print too.
    Does nothing to the two on other threads than the main one: beside it, the explorer draws.
    """
    main = threading.current_thread() is threading.main_thread()
    with _diverted() if main else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _diverted() -> Iterator[None]:
    """Both files point to nowhere, and back again before an interrupt is raised: wherever that
    strikes, also on the way in or out, what is said of it afterwards can be read."""
    kept: dict[int, int] = {}
    before = signal.getsignal(signal.SIGINT)

    def restore() -> None:
        for number, copy in kept.items():
            _flush(number)
            os.dup2(copy, number)

    def interrupted(number: int, frame: FrameType | None) -> None:
        restore()
        if callable(before):
            before(number, frame)

    if callable(before):
        signal.signal(signal.SIGINT, interrupted)
    try:
        for number in (_OUT, _ERR):
            with suppress(OSError):  # it is closed
                kept[number] = os.dup(number)
                _divert(number)
        yield
    finally:
        restore()
        if callable(before):
            signal.signal(signal.SIGINT, before)
        for copy in kept.values():
            os.close(copy)


def _divert(number: int) -> None:
    _flush(number)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _flush(number: int) -> None:
    with suppress(RuntimeError):  # the interrupt struck while it was being written to
        (sys.stdout if number == _OUT else sys.stderr).flush()
