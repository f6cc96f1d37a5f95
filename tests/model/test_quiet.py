"""What libraries print is swallowed; what moetui says afterwards never is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from moetui.model import quiet as module
from moetui.model.quiet import quiet
from tests.interrupts import interrupt_at


def places() -> list[tuple[int, int]]:
    """Which files standard output and error are."""
    return [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)]


@pytest.fixture(autouse=True)
def default_signals() -> Iterator[None]:
    before, traced = signal.getsignal(signal.SIGINT), sys.gettrace()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    sys.settrace(traced)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("count", range(1, 60))
def test_wherever_ctrl_c_strikes_standard_error_is_back_when_it_is_told(
    count: int,
) -> None:
    before, interrupted, inside = places(), False, None
    try:
        interrupt_at(count, module.__file__)
        with quiet():
            inside = places()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sys.settrace(None)
    assert places() == before
    assert inside is None or inside != before
    assert interrupted or inside is not None


def test_compiled_code_is_silenced_and_heard_again(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(1, b"note")
        os.write(2, b"panic")
    os.write(2, b"error")
    assert capfd.readouterr() == ("", "error")


def test_an_interrupt_inside_is_one(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), quiet():
        signal.raise_signal(signal.SIGINT)
    os.write(2, b"interrupted")
    assert capfd.readouterr().err == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
