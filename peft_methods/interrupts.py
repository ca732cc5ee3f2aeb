"""What ends a run early: the first Ctrl-C (or SIGTERM) in order, the next at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import pytest

INTERRUPTED = 2  # as pytest exits then
SAID = b"\npeft-methods: stopped at once, without a table; the cells that have ended are kept.\n"
USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Interrupts:
    """A pytest plugin with signal handlers, from `heed` until `forget`; `close` ends what runs.

    There are none outside the main thread, where Python has none. A first interrupt raises `KeyboardInterrupt`, which pytest
    takes seconds to report; another one has to be expected from then on.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._before: dict[int, Any] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """With each test: one that caught an interrupt has ended nothing."""
        self.heed()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """What comes now is the end."""
        self.leave_at_the_next()

    def pytest_unconfigure(self) -> None:
        """Python goes on without pytest."""
        self.forget()

    def heed(self) -> None:
        """The next interrupt is a first one (again, where someone caught it). Handlers that someone else set stay."""
        if threading.current_thread() is threading.main_thread():
            for number, usual in USUAL.items():
                if number in self._before or signal.getsignal(number) == usual:
                    self._before.setdefault(number, usual)
                    signal.signal(number, self._interrupt)

    def leave_at_the_next(self) -> None:
        """The next interrupt ends this process, whatever it is doing; one while it does so ends it without more ado."""
        for number in self._before:
            signal.signal(number, self._leave)

    def forget(self) -> None:
        """As it was before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _interrupt(self, number: int, frame: FrameType | None) -> NoReturn:
        self.leave_at_the_next()
        raise KeyboardInterrupt

    def _leave(self, number: int, frame: FrameType | None) -> NoReturn:
        for heeded in self._before:
            signal.signal(heeded, signal.SIG_DFL)
        with contextlib.suppress(Exception):  # it may have struck in the midst of closing
            self._close()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            os.write(2, SAID)
        os._exit(INTERRUPTED)
