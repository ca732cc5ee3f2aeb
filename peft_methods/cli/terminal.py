"""Output to pytest's terminal that bypasses its capturing."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from peft_methods.cli.setting_help import how_to_change
from peft_methods.runs.progress.display import (
    Display,
    Lines,
    LiveLines,
    NullDisplay,
    can_be_live,
    size_of,
)

if TYPE_CHECKING:
    from peft_methods.report.text.layout import Emphasis, Layout

MARKUP: dict[Emphasis, dict[str, bool]] = {
    "plain": {},
    "title": {"bold": True},
    "best": {"green": True, "bold": True},
    "error": {"red": True},
    "warning": {"yellow": True},
    "note": {"cyan": True},
}


def table_layout(reporter: Any, columns: tuple[str, ...]) -> Layout:
    """Return the layout of tables in pytest's terminal: its width and its colours.

    pytest decides on colours: by the terminal, --color and NO_COLOR.
    """
    from peft_methods.report.text.layout import WIDTH_OF_A_LOG, Layout

    writer = reporter.config.get_terminal_writer()

    def paint(text: str, emphasis: Emphasis) -> str:
        markup = MARKUP[emphasis]
        return str(writer.markup(text, **markup)) if markup else text

    log_width = shutil.get_terminal_size((WIDTH_OF_A_LOG, 24)).columns
    return Layout(
        columns=columns,
        width=writer.fullwidth if reporter.isatty else log_width,
        is_wrapped=bool(reporter.isatty),
        how_to_choose=f"Choose columns with {how_to_change('columns')}.",
        paint=paint,
    )


def progress_display(config: pytest.Config) -> Display:
    """Create a display that bypasses pytest's capturing.

    Live lines in a terminal, permanent lines elsewhere, nothing with -q.
    """
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.verbose < 0:
        return NullDisplay()
    if can_be_live(terminal=reporter.isatty):
        return _BelowPytest(config, reporter)
    return Lines(lambda text: _write(config, reporter, text))


class _BelowPytest(LiveLines):
    """Live lines in the terminal that pytest writes its own lines to."""

    def __init__(self, config: pytest.Config, reporter: Any) -> None:
        super().__init__(self._write_below, self._terminal_size)
        self._config, self._reporter = config, reporter
        self._is_above = False  # whether the cursor is still on the line above ours

    def hand_over(self) -> None:
        """Clear the live lines and move up a line.

        pytest starts its next line with a newline, which would leave a blank line. With -v, that
        line names the test. Otherwise pytest writes only a letter, so the file's name is written
        first.
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
        with _uncaptured(self._config):  # otherwise the descriptor would be that of a file
            return size_of(self._reporter._tw._file)

    def _write_below(self, text: str) -> None:
        down = "\n" if self._is_above and not self._reporter.currentfspath else ""
        self._is_above = False
        _write(self._config, self._reporter, down + text)


def _write(config: pytest.Config, reporter: Any, text: str) -> None:
    """Write on a new line. `ensure_newline` tracks whether pytest is within one."""
    with _uncaptured(config):
        reporter.ensure_newline()
        reporter.write(text, flush=True)


def _uncaptured(config: pytest.Config) -> Any:
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()


def show_text(config: pytest.Config, text: str) -> None:
    """Write a text of several lines."""
    _write(config, config.pluginmanager.get_plugin("terminalreporter"), f"{text}\n")
