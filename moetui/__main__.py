"""`python -m moetui` and the `moetui` console script."""

from __future__ import annotations

import signal
import sys

from moetui.errors import EXIT_INTERRUPTED, INTERRUPTED


def main() -> None:
    """Run the command line; see `moetui --help`."""
    try:
        from moetui.cli import run

        code = run(sys.argv[1:])
        # All is written and said: an interrupt of the interpreter's own end would only be noise.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:  # while the command line is imported, or has just returned
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write(f"\n{INTERRUPTED}\n")
        code = EXIT_INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
