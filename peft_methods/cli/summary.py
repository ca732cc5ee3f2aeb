"""The end of a session: the table in the terminal, and every requested file.

A file that cannot be written affects nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.cli.command_text import pytest_command
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.sanitize import visible

if TYPE_CHECKING:
    from peft_methods.analysis.comparison import Comparison
    from peft_methods.analysis.constraints import Constraints
    from peft_methods.analysis.regression_report import RegressionReport
    from peft_methods.cli.options import Options


def write(
    terminalreporter: Any,
    comparison: Comparison,
    options: Options,
    regressions: RegressionReport | None,
) -> None:
    """Write the comparison to pytest's terminal and to the requested files."""
    from peft_methods.cli.terminal import table_layout
    from peft_methods.report.text.comparison import markdown_table, terminal_table
    from peft_methods.report.text.csv_table import csv_table

    terminalreporter.section("comparison of fine-tuning methods")
    layout = table_layout(terminalreporter, options.columns)
    terminalreporter.write_line(terminal_table(comparison, options.limits, layout))
    if options.markdown is not None:
        _write(options.markdown, markdown_table(comparison, options.limits), terminalreporter)
    if options.csv is not None:
        _write(options.csv, csv_table(comparison), terminalreporter)
    if options.report is not None:
        _report(options.report, comparison, options, regressions, terminalreporter)
    if options.paper is not None:
        _write_paper(options.paper, comparison, options.limits, terminalreporter)
    if regressions is not None and regressions.entries:
        terminalreporter.section("regression check")
        for line in regressions.lines():
            terminalreporter.write_line(visible(line.text), red=line.is_failure)


def _write(path: Path, text: str, terminalreporter: Any) -> None:
    from peft_methods.utils.files import write_whole

    try:
        write_whole(path, text)
    except OSError as error:
        terminalreporter.write_line(f"{path} could not be written: {error.strerror}.", red=True)
    else:
        terminalreporter.write_line(f"written: {path}")


def _report(
    folder: Path,
    comparison: Comparison,
    options: Options,
    regressions: RegressionReport | None,
    terminalreporter: Any,
) -> None:
    from peft_methods.report.html.page import build_report, write_report

    report = build_report(comparison, options.limits, options.regression, regressions)
    try:
        path = write_report(report, folder, pytest_command)
    except PeftMethodsError as error:
        terminalreporter.write_line(str(error), red=True)
    else:
        terminalreporter.write_line(f"written: {path}")


def _write_paper(
    path: Path, comparison: Comparison, limits: Constraints, terminalreporter: Any
) -> None:
    from peft_methods.report.paper.document import write_paper

    try:
        written = write_paper(comparison, path, limits)
    except PeftMethodsError as error:
        terminalreporter.write_line(str(error), red=True)
    else:
        terminalreporter.write_line(f"written: {', '.join(map(str, written))}")
