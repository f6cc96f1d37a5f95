"""Errors that a user can act on: one line for the cause, one for the next step."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

INTERRUPTED = "interrupted: the same command starts again, a batch with --resume where it stopped"
"""What is said of Ctrl-C where nothing more is known."""


class MoetuiError(Exception):
    """A failure with a cause (`message`), a next step (`hint`) and the process exit code.

    Everything that a user can cause or mend raises this; anything else is a defect.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MoetuiError):
    """Bad usage, configuration or model: exit code 2."""

    exit_code = EXIT_USAGE


class ModelError(UsageError):
    """The model cannot be found, read or run."""


class TraceFileError(UsageError):
    """A trace file that is not one, is damaged, or claims more than it holds."""


class RunFailedError(MoetuiError):
    """The run itself failed: exit code 1."""


class InterruptedRunError(MoetuiError):
    """Ctrl-C, where there is more to say of it than that: exit code 130."""

    exit_code = EXIT_INTERRUPTED


class LostRankError(RunFailedError):
    """Another process of the same launch has ended: nothing can be shared with it any more."""
