"""Writing to pytest's terminal past its capturing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from peft_methods.escaping import visible


def live_line(config: pytest.Config) -> Callable[[str, bool], None]:
    """Shows progress past pytest's capturing: one line written over in a terminal, lasting lines elsewhere, none with -q."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.verbose < 0:
        return lambda text, lasting: None
    terminal = reporter.isatty

    def show(text: str, lasting: bool) -> None:
        if not terminal and not lasting:
            return
        with _uncaptured(config):
            reporter.ensure_newline()
            width, line = reporter._tw.fullwidth - 1, visible(text)
            reporter.write(f"\r\x1b[2K{line[:width]}" if terminal else line)
            if lasting:
                reporter.write("\n")
            reporter.flush()

    return show


def _uncaptured(config: pytest.Config) -> Any:
    capture = config.pluginmanager.get_plugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()


def show_text(config: pytest.Config, text: str) -> None:
    """Write a text of many lines."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    with _uncaptured(config):
        reporter.ensure_newline()
        reporter.write(f"\r\x1b[2K{text}\n" if reporter.isatty else f"{text}\n")
