"""Where progress is shown: a few live lines at the bottom of a terminal, lasting lines elsewhere, or nowhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

CLEAR = "\r\x1b[J"  # from the cursor's line to the end of the screen


class Display(Protocol):
    """Takes lines that stay and lines that are written over. `columns` are those of a live line, 0 where there are none."""

    @property
    def columns(self) -> int:
        """The widest live line."""

    def say(self, line: str) -> None:
        """Write a line that stays."""

    def draw(self, lines: Sequence[str]) -> None:
        """Show these in place of the live lines so far."""

    def hand_over(self) -> None:
        """Take the live lines away: somebody else may write now."""


class Nowhere:
    """Shows nothing."""

    columns = 0

    def say(self, line: str) -> None:
        """Nothing."""

    def draw(self, lines: Sequence[str]) -> None:
        """Nothing."""

    def hand_over(self) -> None:
        """Nothing."""


class Lines(Nowhere):
    """Lasting lines alone: for files and the logs of CI."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def say(self, line: str) -> None:
        """Write the line."""
        self._write(f"{line}\n")


class LiveLines:
    """Live lines below the lasting ones.

    The cursor waits at the start of the first live line, so that clearing from there downwards is right however the
    terminal's width has changed since, and whatever an interrupt echoed there is cleared too.
    """

    def __init__(self, write: Callable[[str], None], size: Callable[[], os.terminal_size]) -> None:
        self._write, self._size = write, size
        self._live: tuple[str, ...] = ()

    @property
    def columns(self) -> int:
        """The terminal's width but one: a full line would wrap."""
        return max(1, self._size().columns - 1)

    def say(self, line: str) -> None:
        """Write the line above the live ones."""
        self._write(f"{CLEAR}{line}\n{self._drawing()}")

    def draw(self, lines: Sequence[str]) -> None:
        """Write over the live lines."""
        self._live = tuple(lines)
        self._write(CLEAR + self._drawing())

    def hand_over(self) -> None:
        """Clear them."""
        if self._live:
            self.draw(())

    def _drawing(self) -> str:
        """The live lines, cut to the screen, and the way back to the first of them."""
        columns, rows = self.columns, max(1, self._size().lines - 1)
        shown = [line[:columns] for line in self._live[:rows]]
        back = f"\x1b[{len(shown) - 1}A" if len(shown) > 1 else ""
        return "\n".join(shown) + back + "\r" if shown else ""


def can_be_live(*, terminal: bool) -> bool:
    """Whether lines can be written over. Logs of CI keep every byte, even where there seems to be a terminal."""
    return terminal and os.environ.get("TERM", "") not in {"", "dumb"} and not os.environ.get("CI")


def size_of(stream: TextIO) -> os.terminal_size:
    """The terminal's size now, where this stream is one that knows it."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        size = os.terminal_size((0, 0))
    return size if size.columns and size.lines else shutil.get_terminal_size()


def display_on(stream: TextIO) -> Display:
    """Progress on this stream."""

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return (
        LiveLines(write, lambda: size_of(stream))
        if can_be_live(terminal=stream.isatty())
        else Lines(write)
    )
