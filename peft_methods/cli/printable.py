"""Comparisons and estimates that print themselves: what the Python API returns."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.data_sets import DataSetSummary, summarize_data_sets
from peft_methods.analysis.learning_curve import LearningCurve, curves_of, main_part
from peft_methods.analysis.questions import Recommendation
from peft_methods.analysis.recommendations import recommend
from peft_methods.cli import parsing
from peft_methods.cli.command_text import pytest_command
from peft_methods.estimation.api import Estimates
from peft_methods.report.charts import charts_across, charts_of
from peft_methods.report.charts.base import Chart
from peft_methods.report.html.page import build_report, write_report
from peft_methods.report.html.snippet import html_table
from peft_methods.report.requirements import check_libraries, has_libraries
from peft_methods.report.text.comparison import markdown_table, terminal_table
from peft_methods.report.text.estimate import estimates_text
from peft_methods.report.text.layout import Layout

DEFAULT_WIDTH = 100  # characters, where there is no terminal


@dataclass(frozen=True)
class PrintableComparison(Comparison):
    """A comparison that prints as a table, also in a notebook.

    `limits` restrict what it recommends.
    """

    limits: Constraints = field(default_factory=dict)

    def table(self, columns: Sequence[str] = (), width: int | None = None) -> str:
        """Format the comparison as it appears in the terminal.

        `columns` are names such as "accuracy", "group" or "peak_memory_bytes"; without any, the
        table has those that fit `width`, by default the width of the terminal. Raises `OptionError`
        for an unknown name, with all that are allowed.
        """
        shown = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns if width is None else width
        layout = Layout(
            parsing.columns_of(columns),
            shown,
            how_to_choose="Choose columns with table(columns=[...]).",
        )
        return terminal_table(self, self.limits, layout)

    def recommendations(self) -> list[Recommendation]:
        """Return recommendations for best quality, memory, speed and checkpoint size.

        Of a learning curve, they are those of the largest size.
        """
        return recommend(main_part(self), self.limits)

    def curves(self) -> list[LearningCurve]:
        """Return the learning curves: quality by training rows, and what more rows bring."""
        return curves_of(self)

    def data_sets(self) -> DataSetSummary | None:
        """Return the summary over several recipes; None for one."""
        return summarize_data_sets(self)

    def charts(self) -> list[Chart]:
        """Create all charts, which notebooks display; needs the extra `report`."""
        main = main_part(self)
        charts = [chart for recipe in main.rankings for chart in charts_of(main, recipe)]
        return [*charts, *charts_across(self)]

    def report(self, folder: str | Path) -> Path:
        """Write FOLDER/report.html with its charts and return its path.

        Raises `OptionError` if the extra `report` is not installed.
        """
        check_libraries()
        return write_report(build_report(self, self.limits), Path(folder), pytest_command)

    def paper(self, path: str | Path) -> list[Path]:
        """Write the comparison as a paper, FILE.pdf, with its source and figures; needs `paper`.

        Returns the paths of all files. The extra `paper` must be installed.
        """
        from peft_methods.report.paper.document import write_paper

        return write_paper(self, Path(path), self.limits)

    def __repr__(self) -> str:
        return self.table()

    def _repr_markdown_(self) -> str:
        return markdown_table(self, self.limits)

    def _repr_html_(self) -> str | None:
        """Return the report's table for a notebook; None without the extra `report`."""
        return html_table(self, self.limits) if has_libraries("jinja2") else None


class PrintableEstimates(Estimates):
    """Estimates that print as a table, also in a notebook."""

    def table(self, width: int | None = None) -> str:
        """Format the estimates as the command does, by default as wide as the terminal."""
        shown = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns if width is None else width
        return estimates_text(self, shown)

    def __repr__(self) -> str:
        return self.table()
