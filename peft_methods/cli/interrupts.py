"""Interrupt handling: the first Ctrl-C (or SIGTERM) stops the session, the second exits at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import pytest

NAME = "peft-methods-interrupts"  # of the plugin
INTERRUPTED = 2  # pytest's exit code for an interrupt
MESSAGE = b"\npeft-methods: stopped at once. Finished runs are stored.\n"
DEFAULT_HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Interrupts:
    """A pytest plugin that handles signals from `install` until `restore`; `close` ends all runs.

    `leave` shows what is finished so far, unless that was done.

    Python supports handlers only in the main thread. The first interrupt raises
    `KeyboardInterrupt`, which pytest takes seconds to report. A second one may come at any time
    from then on.
    """

    def __init__(self, close: Callable[[], None], leave: Callable[[], None] = lambda: None) -> None:
        self._close, self._leave_table = close, leave
        self._before: dict[int, Any] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Install the handlers before each test: a test may have caught an interrupt."""
        self.install()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Exit at the next interrupt, since the session is ending."""
        self.exit_on_next()

    def pytest_unconfigure(self) -> None:
        """Restore the handlers: Python may continue without pytest."""
        self.restore()

    def install(self) -> None:
        """Handle the next interrupt as the first one. Handlers set by others are kept."""
        if threading.current_thread() is threading.main_thread():
            for number, default in DEFAULT_HANDLERS.items():
                if number in self._before or signal.getsignal(number) == default:
                    self._before.setdefault(number, default)
                    signal.signal(number, self._interrupt)

    def exit_on_next(self) -> None:
        """Exit at the next interrupt, whatever runs. During that exit, a further one kills."""
        for number in self._before:
            signal.signal(number, self._leave)

    @contextlib.contextmanager
    def skipping(self) -> Iterator[None]:
        """Context manager: the next Ctrl-C ends what happens inside, and the session continues."""
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._interrupt)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                yield
        finally:
            self.exit_on_next()

    def restore(self) -> None:
        """Restore the earlier handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _interrupt(self, number: int, frame: FrameType | None) -> NoReturn:
        self.exit_on_next()
        raise KeyboardInterrupt

    def _leave(self, number: int, frame: FrameType | None) -> NoReturn:
        for handled in self._before:
            signal.signal(handled, signal.SIG_DFL)
        with contextlib.suppress(Exception):  # the interrupt may have come during either
            self._leave_table()
        with contextlib.suppress(Exception):
            self._close()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            os.write(2, MESSAGE)
        os._exit(INTERRUPTED)


def skippable(config: pytest.Config) -> contextlib.AbstractContextManager[None]:
    """Return a context in which Ctrl-C ends what happens inside, and the session continues."""
    found = config.pluginmanager.get_plugin(NAME)
    if isinstance(found, Interrupts):
        return found.skipping()
    return contextlib.suppress(KeyboardInterrupt)
