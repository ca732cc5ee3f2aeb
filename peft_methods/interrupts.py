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

INTERRUPTED = 2  # as pytest exits then
SAID = b"\npeft-methods: stopped at once, without a table; the cells that have ended are kept.\n"


class Interrupts:
    """Signal handlers, from `heed` until `forget`; none outside the main thread, where Python has none."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def heed(self) -> None:
        """From now on SIGTERM is what Ctrl-C is, unless someone else has a use for it."""
        if _in_main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._set(signal.SIGTERM, _interrupt)

    def leave_at_the_next(self, close: Callable[[], None]) -> None:
        """The next interrupt calls `close` and ends this process, whatever it is doing; the one after that does without."""

        def leave(number: int, frame: FrameType | None) -> NoReturn:
            signal.signal(number, signal.SIG_DFL)
            with contextlib.suppress(Exception):  # it may have struck in the midst of closing
                close()
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                os.write(2, SAID)
            os._exit(INTERRUPTED)

        if _in_main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            self._set(signal.SIGINT, leave)
        if signal.SIGTERM in self._before:
            self._set(signal.SIGTERM, leave)

    def forget(self) -> None:
        """As it was before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _set(self, number: int, handler: Callable[[int, FrameType | None], Any]) -> None:
        before = signal.signal(number, handler)
        self._before.setdefault(number, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
