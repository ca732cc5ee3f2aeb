"""Writing to pytest's terminal past its capturing."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest

from peft_methods.execution.display import Display, Lines, LiveLines, Nowhere, can_be_live, size_of


def progress_display(config: pytest.Config) -> Display:
    """Shows progress past pytest's capturing: live lines in a terminal, lasting lines elsewhere, nothing with -q."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.verbose < 0:
        return Nowhere()
    if can_be_live(terminal=reporter.isatty):
        return _BesidePytest(config, reporter)
    return Lines(lambda text: _write(config, reporter, text))


class _BesidePytest(LiveLines):
    """Live lines in the terminal that pytest writes its own lines to."""

    def __init__(self, config: pytest.Config, reporter: Any) -> None:
        super().__init__(self._write_below, self._terminal_size)
        self._config, self._reporter = config, reporter
        self._is_above = (
            False  # whether the cursor was left on the line before ours, and is there still
        )

    def hand_over(self) -> None:
        """Clear them, and go up a line: pytest begins its next line with a new one, which would leave a blank.

        With -v that line names the test anyway; else pytest writes nothing but a letter, and its file's name belongs before it.
        """
        if not self._live:
            return
        self.draw(())
        self._write_below("\x1b[A")
        if self._config.option.verbose:
            self._is_above = True
        else:
            with _uncaptured(self._config):
                self._reporter.write_fspath_result(
                    os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0], ""
                )

    def _terminal_size(self) -> os.terminal_size:
        with _uncaptured(self._config):  # or the terminal's descriptor would be a file's
            return size_of(self._reporter._tw._file)

    def _write_below(self, text: str) -> None:
        down = "\n" if self._is_above and not self._reporter.currentfspath else ""
        self._is_above = False
        _write(self._config, self._reporter, down + text)


def _write(config: pytest.Config, reporter: Any, text: str) -> None:
    """On a line of its own; `ensure_newline` knows whether pytest has begun one."""
    with _uncaptured(config):
        reporter.ensure_newline()
        reporter.write(text, flush=True)


def _uncaptured(config: pytest.Config) -> Any:
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()


def show_text(config: pytest.Config, text: str) -> None:
    """Write a text of many lines."""
    _write(config, config.pluginmanager.get_plugin("terminalreporter"), f"{text}\n")
