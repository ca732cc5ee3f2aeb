"""A small terminal: what a person would see of text with the moves that live lines use."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MOVE = re.compile(r"\x1b\[(\d*)([AJ])")


class Screen:
    """The parts of a terminal that live lines need: newline, carriage return, up, clear to end."""

    def __init__(self) -> None:
        self.lines, self.row, self.column = [""], 0, 0

    def write(self, text: str) -> None:
        """Write text, with its moves."""
        at = 0
        while at < len(text):
            move = MOVE.match(text, at)
            if move and move[2] == "A":
                self.row = max(0, self.row - int(move[1] or 1))
            elif move:
                self.lines[self.row :] = [self.lines[self.row][: self.column]]
            else:
                self._put(text[at])
            at = move.end() if move else at + 1

    def _put(self, character: str) -> None:
        if character in "\r\n":
            self.row, self.column = self.row + (character == "\n"), 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
            return
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def __str__(self) -> str:
        return "\n".join(self.lines)


def _control_terminal() -> None:
    """Make the terminal the one whose Ctrl-C this process gets, and let it be interrupted."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Terminal:
    """A pytest session in a pseudo-terminal of some size, and the screen it writes to."""

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        size: tuple[int, int] = (60, 24),
    ) -> None:
        self._end, other = pty.openpty()
        self.resize(*size)
        left_out = {"CI", "PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS"}
        clean = {name: value for name, value in os.environ.items() if name not in left_out}
        own = {"TERM": "xterm", "NO_COLOR": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        plugins = ["-p", "pytest_benchmark.plugin", "-p", "peft_methods.plugin"]
        command = [sys.executable, "-m", "pytest", *plugins, "-p", "no:cacheprovider", *arguments]
        self.process: Any = subprocess.Popen(
            command,
            cwd=folder,
            env={**clean, **own, **environment},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=_control_terminal,  # noqa: PLW1509  # it only calls the system
        )
        os.close(other)
        self.written = ""

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the terminal."""
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type text: "\\x03" is Ctrl-C."""
        os.write(self._end, text.encode())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def until(self, text: str, seconds: float = 240) -> None:
        """Read until the screen has a text."""
        end = time.monotonic() + seconds
        while text not in str(self.screen):
            left = end - time.monotonic()
            assert left > 0, str(self.screen)
            ready, _, _ = select.select([self._end], [], [], left)
            assert ready, str(self.screen)
            assert self._read(), str(self.screen)

    def finish(self) -> int:
        """Read until the session ends; return its exit code."""
        while self._read():
            pass
        os.close(self._end)
        return int(self.process.wait())

    @property
    def screen(self) -> Screen:
        """What is on the screen, scrolled lines included."""
        screen = Screen()
        screen.write(self.written.replace("\r\n", "\n"))
        return screen

    def _read(self) -> bool:
        try:
            piece = os.read(self._end, 4096)
        except OSError:  # how Linux reports that the other end was closed
            return False
        self.written += piece.decode(errors="replace")
        return bool(piece)
