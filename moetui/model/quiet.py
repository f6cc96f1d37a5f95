"""Keeping what libraries print off standard output and error, which are moetui's own."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_OUT, _ERR = 1, 2


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing written inside reaches standard output or error, not even by compiled code.

    The tokenizers library, in Rust, prints notes and panics by itself; files of mlx-lm print too.
    Does nothing to the two on other threads than the main one: beside it, the explorer draws.
    """
    main = threading.current_thread() is threading.main_thread()
    kept = [(number, _diverted(number)) for number in (_OUT, _ERR) if main]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, copy in kept:
            _flush(number)
            if copy is not None:
                os.dup2(copy, number)
                os.close(copy)


def _diverted(number: int) -> int | None:
    """Point file `number` to nowhere; a copy of what it was, None when it is closed."""
    try:
        copy = os.dup(number)
    except OSError:
        return None
    _flush(number)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
    return copy


def _flush(number: int) -> None:
    (sys.stdout if number == _OUT else sys.stderr).flush()
