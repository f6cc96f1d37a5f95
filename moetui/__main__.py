"""`python -m moetui` and the `moetui` console script.

Nothing that takes a while is imported outside of `main`: an interrupt there would be a traceback.
"""

from __future__ import annotations

import os
import sys

from moetui.errors import EXIT_INTERRUPTED, INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from typing import NoReturn


def main() -> None:
    """Run the command line; see `moetui --help`."""
    sys.unraisablehook = _unraisable
    try:
        from moetui.cli import run

        code = run(sys.argv[1:])
        # All is written and said: an interrupt of the interpreter's own end would only be noise.
        _ignore_interrupts()
    except KeyboardInterrupt:  # while the command line is imported, or has just returned
        _ignore_interrupts()
        sys.stderr.write(f"\n{INTERRUPTED}\n")
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        _exit(code)
    sys.exit(code)


def _ignore_interrupts() -> None:
    from signal import SIG_IGN, SIGINT, signal

    signal(SIGINT, SIG_IGN)


def _unraisable(what: UnraisableHookArgs) -> None:
    """Python drops what is raised in a destructor: an interrupt comes again a moment later."""
    from _thread import interrupt_main
    from threading import Timer

    if what.exc_type is KeyboardInterrupt:
        again = Timer(0.01, interrupt_main)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(what)


def _exit(code: int) -> NoReturn:
    """End at once, with that code. Python would end by the signal, and not by the code, where the
    interrupt struck inside an `exec` of text, as dataclasses use it while they are imported."""
    from contextlib import suppress

    for file in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads any more
            file.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
