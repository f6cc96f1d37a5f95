"""`python -m moetui` and the `moetui` console script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; see `moetui --help`."""
    from moetui.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
