"""Displays for progress: live lines in a terminal, permanent lines elsewhere, or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

from peft_methods.runs.progress.live import Live, text_of

CLEAR = "\r\x1b[J"  # clears from the cursor's line to the end of the screen


class Display(Protocol):
    """A place to write permanent lines and live lines, which later ones overwrite.

    `columns` is the width of a live line, or 0 if live lines are not supported.
    """

    @property
    def columns(self) -> int:
        """The maximum width of a live line."""

    def say(self, line: str, *, routine: bool = False) -> None:
        """Write a permanent line; a `routine` one says what live displays show in another way."""

    def show(self, live: Live) -> None:
        """Show the state of the session as live lines."""

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the current live lines by these."""

    def hand_over(self) -> None:
        """Clear the live lines, because other code will write to the terminal next."""


class NullDisplay:
    """A display that shows nothing."""

    columns = 0

    def say(self, line: str, *, routine: bool = False) -> None:
        """Ignore the line."""

    def show(self, live: Live) -> None:
        """Ignore the state."""

    def draw(self, lines: Sequence[str]) -> None:
        """Ignore the lines."""

    def hand_over(self) -> None:
        """Do nothing."""


class Lines(NullDisplay):
    """A display with permanent lines only, for files and CI logs."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def say(self, line: str, *, routine: bool = False) -> None:
        """Write the line."""
        self._write(f"{line}\n")


class LiveLines:
    """A display with live lines below the permanent ones.

    The cursor stays at the start of the first live line. Clearing from there downwards is correct
    even after the terminal was resized, and also removes whatever an interrupt echoed there.
    """

    def __init__(self, write: Callable[[str], None], size: Callable[[], os.terminal_size]) -> None:
        self._write, self._size = write, size
        self._live: tuple[str, ...] = ()

    @property
    def columns(self) -> int:
        """The terminal's width minus one, since a full line would wrap."""
        return max(1, self._size().columns - 1)

    def say(self, line: str, *, routine: bool = False) -> None:
        """Write the line above the live lines."""
        self._write(f"{CLEAR}{line}\n{self._drawing()}")

    def show(self, live: Live) -> None:
        """Overwrite the live lines by the state, as much as the screen has room for."""
        self.draw(text_of(live, self.columns, max(1, self._size().lines - 1)))

    def draw(self, lines: Sequence[str]) -> None:
        """Overwrite the live lines."""
        self._live = tuple(lines)
        self._write(CLEAR + self._drawing())

    def hand_over(self) -> None:
        """Clear the live lines."""
        if self._live:
            self.draw(())

    def _drawing(self) -> str:
        """Format the live lines, cut to the screen, then move the cursor back to the first."""
        columns, rows = self.columns, max(1, self._size().lines - 1)
        shown = [line[:columns] for line in self._live[:rows]]
        back = f"\x1b[{len(shown) - 1}A" if len(shown) > 1 else ""
        return "\n".join(shown) + back + "\r" if shown else ""


def can_be_live(*, terminal: bool) -> bool:
    """Whether live lines are supported.

    False in CI even with a terminal, because CI logs keep every byte.
    """
    return terminal and os.environ.get("TERM", "") not in {"", "dumb"} and not os.environ.get("CI")


def size_of(stream: TextIO) -> os.terminal_size:
    """Return the current size of the terminal that `stream` writes to, or a default."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        size = os.terminal_size((0, 0))
    return size if size.columns and size.lines else shutil.get_terminal_size()


def display_on(stream: TextIO) -> Display:
    """Create a display that writes progress to `stream`."""

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return (
        LiveLines(write, lambda: size_of(stream))
        if can_be_live(terminal=stream.isatty())
        else Lines(write)
    )
