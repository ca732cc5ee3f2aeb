"""The HTML report: one self-contained file, plus a folder with the charts as separate files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.learning_curve import main_part
from peft_methods.analysis.merged import merge_sections
from peft_methods.analysis.regression import RegressionCheck
from peft_methods.analysis.regression_report import RegressionReport
from peft_methods.analysis.sections import Section, group_records
from peft_methods.report.charts import charts_across, charts_of, save_chart, save_charts
from peft_methods.report.formatting import format_time, without_home
from peft_methods.report.html.chart_view import ChartView, chart_view
from peft_methods.report.html.curves import CurveView, curve_views
from peft_methods.report.html.data_sets import SummaryView, summary_view
from peft_methods.report.html.length import length_note, listed_of_each
from peft_methods.report.html.models import ModelsView, models_views
from peft_methods.report.html.noise import noise_view
from peft_methods.report.html.rendering import TEMPLATES, environment
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.html.view import (
    SEVERITIES,
    SectionView,
    section_view,
)
from peft_methods.report.reproduce import CommandFormat
from peft_methods.runs.store import StoreError
from peft_methods.utils.files import atomically
from peft_methods.utils.words import counted

ChartChoice = Literal["few", "all", "none"]
# "few" draws up to this many sections: a chart takes 0.1 to 0.2 s, and a section has about twenty.
DRAWN_SECTIONS = 3
PARTS = {
    "answers": "Recommendations",
    "comparison": "Comparison",
    "baseline": "Changes from the baseline",
    "findings": "Findings",
    "charts": "Charts",
    "views": "Results in detail",
    "tuning": "Tuning",
    "estimates": "Estimate",
    "metrics": "All metrics",
    "reproduce": "How to reproduce each row",
    "runs": "Settings, environment, runs",
}
DIFFERENCES = "Differences from the recipe's first section"


@dataclass(frozen=True)
class Report:
    """The content of a report: sections of records, with the notes and limits that belong to them.

    `remarks` are notes on the whole session. `regression` and `regressions` are set if the session
    was compared with a baseline. `charts`: "few" draws charts for up to DRAWN_SECTIONS sections,
    "all" draws them for any number, "none" draws no charts.
    """

    sections: Sequence[Section]
    remarks: tuple[str, ...] = ()
    silenced: tuple[str, ...] = ()
    limits: Constraints = field(default_factory=dict)
    regression: RegressionCheck | None = None
    regressions: RegressionReport | None = None
    charts: ChartChoice = "few"

    @cached_property
    def merged(self) -> Comparison:
        """All sections as one comparison, each under its name."""
        return merge_sections(self.sections)

    @cached_property
    def drawn(self) -> frozenset[str]:
        """The names of the sections whose charts are drawn.

        With "few", these are not the smaller sizes of a learning curve.
        """
        if self.charts == "few":
            main = frozenset(main_part(self.merged).rankings)
            return main if len(main) <= DRAWN_SECTIONS else frozenset()
        return frozenset(one.name for one in self.sections) if self.charts == "all" else frozenset()


@dataclass(frozen=True)
class Page:
    """Template values of the whole page: header, overview, sections and notes.

    `limits_text` is appended to the introduction of the recommendations.
    """

    title: str
    lede: tuple[str, ...]
    measured: str
    sections: tuple[SectionView, ...]
    curves: tuple[CurveView, ...]
    models: tuple[ModelsView, ...]
    summary: SummaryView | None
    overview: Table | None
    remarks: tuple[str, ...]
    silenced: tuple[str, ...]
    limits_text: str


def build_report(
    comparison: Comparison,
    limits: Constraints,
    regression: RegressionCheck | None = None,
    regressions: RegressionReport | None = None,
) -> Report:
    """Build the report of one session."""
    sections = group_records(
        comparison.records, comparison.predictions, comparison.silenced, comparison.margin
    )
    return Report(sections, comparison.notes, comparison.silenced, limits, regression, regressions)


def write_report(report: Report, folder: Path, command: CommandFormat) -> Path:
    """Write FOLDER/report.html, and each chart as SVG and PNG to FOLDER/charts/.

    `command` formats the command that reproduces a row.

    Raises `PeftMethodsError` if a file cannot be written.
    """
    page = _page(report, command)
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomically(path, lambda file: file.write(_rendered(page).encode("utf-8", "replace")))
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}. Choose another folder."
        ) from None
    for section in report.sections:
        if section.name in report.drawn:
            number = "" if section.number == 1 else f"-{section.number}"
            save_charts(section.comparison, folder / f"charts{number}")
    if report.charts != "none":
        for chart in charts_across(report.merged):
            save_chart(chart, folder / "charts")
    return path


def _page(report: Report, command: CommandFormat) -> Page:
    of_each = listed_of_each(report.sections)
    views = tuple(
        replace(
            section_view(
                one,
                report.limits,
                report.regression,
                _chart_views(one) if one.name in report.drawn else (),
                regression_lines=_regression_lines(report, one.recipe),
                command=command,
                of_each=of_each,
            ),
            noise=noise_view(one, report.sections),
        )
        for one in report.sections
    )
    records = [record for section in report.sections for record in section.comparison.records]
    times = [record.finished for record in records]
    runs = sum(view.run_count for view in views)
    listed = sum(len(view.runs.lines) for view in views)
    counts = f"{counted(runs, 'run')} in {counted(len(views), 'section')}"
    undrawn = (
        f"Charts are drawn for up to {DRAWN_SECTIONS} sections; this report has {len(views)}. "
        "Report fewer results, or use `python -m peft_methods report --charts all`."
    )
    return Page(
        title="Fine-tuning methods compared",
        lede=(views[0].headline,) if len(views) == 1 else (),
        measured=f"{counts}, finished {format_time(min(times))} to {format_time(max(times))}."
        if times
        else "No records.",
        sections=views,
        summary=summary_view(report.merged, is_drawn=report.charts != "none"),
        curves=curve_views(report.merged, is_drawn=report.charts != "none"),
        models=models_views(report.merged),
        overview=_overview(views) if len(views) > 1 else None,
        remarks=tuple(
            map(
                without_home,
                [
                    *length_note(listed, of_each, report.sections),
                    *report.remarks,
                    *([undrawn] if report.charts == "few" and not report.drawn else []),
                ],
            )
        ),
        silenced=report.silenced,
        limits_text="".join(
            f", {name} up to {limit.written}" for name, limit in report.limits.items()
        ),
    )


def _regression_lines(report: Report, recipe: str) -> list[str]:
    """Return the regression check's lines about a recipe or about the whole session."""
    if report.regressions is None:
        return []
    return [line.text for line in report.regressions.of_recipe(recipe).lines()]


def _overview(views: Sequence[SectionView]) -> Table:
    """One line per section: the main recommendation, counts of runs and findings, differences."""
    lines, differ = [], any(view.changes for view in views)
    for view in views:
        counts = {
            severity: sum(group.severity == severity for group in view.findings)
            for severity in SEVERITIES
        }
        found = ", ".join(counted(count, severity) for severity, count in counts.items() if count)
        items = (
            Item(view.headline),
            Item(str(view.run_count), view.run_count),
            Item(found or "none", counts["error"]),
            Item("; ".join(view.changes)),
        )
        lines.append(Line(view.name, items if differ else items[:-1]))
    headings = ("Recommendation", "Runs", "Findings", *[DIFFERENCES] * differ)
    return Table("Section", headings, tuple(lines), frozenset({*headings} - {"Runs"}))


def _chart_views(section: Section) -> list[ChartView]:
    """Draw the section's charts, except those of one method: the page shows those as tables."""
    return [
        chart_view(chart, f"n{section.number}-")
        for chart in charts_of(section.comparison, section.recipe)
        if not chart.method
    ]


def parts_of(view: SectionView) -> list[tuple[str, str]]:
    """List the non-empty parts of a section as (anchor, title)."""
    optional = {
        "charts": view.charts,
        "views": view.views,
        "tuning": view.tuning,
        "estimates": view.estimates,
        "baseline": view.baseline or view.regression_lines,
    }
    empty = {name for name, content in optional.items() if not content}
    return [(name, title) for name, title in PARTS.items() if name not in empty]


def _rendered(page: Page) -> str:
    from markupsafe import Markup

    style, script = (
        (TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            page=page,
            parts_of=parts_of,
            style=Markup(style),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
        )
    )
