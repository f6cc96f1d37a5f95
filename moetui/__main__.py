"""`python -m moetui` and the `moetui` console script."""

from __future__ import annotations

import os
import signal
import sys
from _thread import interrupt_main
from contextlib import suppress
from threading import Timer
from typing import TYPE_CHECKING, NoReturn

from moetui.errors import EXIT_INTERRUPTED, INTERRUPTED

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> None:
    """Run the command line; see `moetui --help`."""
    sys.unraisablehook = _unraisable
    sys.unraisablehook = _unraisable
    try:
        from moetui.cli import run

        code = run(sys.argv[1:])
        # All is written and said: an interrupt of the interpreter's own end would only be noise.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:  # while the command line is imported, or has just returned
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write(f"\n{INTERRUPTED}\n")
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        _exit(code)
    sys.exit(code)


def _unraisable(what: UnraisableHookArgs) -> None:
    """Python drops what is raised in a destructor: an interrupt comes again a moment later."""
    if what.exc_type is KeyboardInterrupt:
        again = Timer(0.01, interrupt_main)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(what)


def _exit(code: int) -> NoReturn:
    """End at once, with that code. Python would end by the signal, and not by the code, where the
    interrupt struck inside an `exec` of text, as dataclasses use it while they are imported."""
    for file in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads any more
            file.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
