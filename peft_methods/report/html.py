"""The report: one HTML file that needs nothing else, and its charts as files beside it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peft_methods.comparing import Comparison, title_of
from peft_methods.gate import Gate, RegressionReport
from peft_methods.gathering import Section, gather
from peft_methods.recommending import Limits
from peft_methods.report.charts import charts_of, save_charts, svg
from peft_methods.report.colors import style_of
from peft_methods.report.shown import moment, without_home
from peft_methods.report.standings import SAID
from peft_methods.report.tables import Item, Line, Table
from peft_methods.report.view import SEVERITIES, ChartView, SectionView, section_view
from peft_methods.store import StoreError, atomically
from peft_methods.validity import RULES

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
Drawn = Literal["few", "all", "none"]
DRAWN_SECTIONS = (
    3  # that are few: a chart takes a tenth of a second or two, and a section has some twenty
)
PARTS = {
    "answers": "What to take",
    "comparison": "Comparison",
    "baseline": "Against the baseline",
    "findings": "Findings",
    "charts": "Charts",
    "classes": "Class by class",
    "figures": "Every figure",
    "again": "How to make each row again",
    "cells": "Settings, environment, cells",
}


@dataclass(frozen=True)
class Report:
    """What is reported: sections, and what was asked for and said beside their records.

    `remarks` are about the whole session. `gate` and `regressions` are set if it was compared with
    a baseline. `charts`: `few` draws them for at most DRAWN_SECTIONS sections, `all` for any
    number, `none` never.
    """

    sections: Sequence[Section]
    remarks: tuple[str, ...] = ()
    silenced: tuple[str, ...] = ()
    limits: Limits = field(default_factory=dict)
    gate: Gate | None = None
    regressions: RegressionReport | None = None
    charts: Drawn = "few"

    @property
    def is_drawn(self) -> bool:
        """Whether its charts are drawn."""
        return self.charts == "all" or (
            self.charts == "few" and len(self.sections) <= DRAWN_SECTIONS
        )


@dataclass(frozen=True)
class Page:
    """What stands around the sections."""

    title: str
    lede: tuple[str, ...]
    measured: str
    sections: tuple[SectionView, ...]
    overview: Table | None
    remarks: tuple[str, ...]
    silenced: tuple[str, ...]
    within: str


def report_of(
    comparison: Comparison,
    limits: Limits,
    gate: Gate | None = None,
    regressions: RegressionReport | None = None,
) -> Report:
    """The report of one run."""
    sections = gather(comparison.records, comparison.predictions, comparison.silenced)
    return Report(sections, comparison.notes, comparison.silenced, limits, gate, regressions)


def write_report(report: Report, folder: Path) -> Path:
    """FOLDER/report.html, and FOLDER/charts/ with each chart as SVG and PNG. Raises `PeftMethodsError` where it cannot be written."""
    page = _page(report)
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomically(path, lambda file: file.write(_rendered(page).encode("utf-8", "replace")))
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}. Choose another folder."
        ) from None
    for section in report.sections if report.is_drawn else ():
        save_charts(
            section.comparison,
            folder / ("charts" if section.number == 1 else f"charts-{section.number}"),
        )
    return path


def _page(report: Report) -> Page:
    views = tuple(
        section_view(
            one,
            report.limits,
            report.gate,
            _drawn(one) if report.is_drawn else (),
            _regression_lines(report, one.recipe),
        )
        for one in report.sections
    )
    records = [record for section in report.sections for record in section.comparison.records]
    times = [record.finished for record in records]
    cells = sum(len(view.cells.lines) for view in views)
    what = f"{cells} cell{'s' * (cells != 1)} in {len(views)} section{'s' * (len(views) != 1)}"
    undrawn = f"Charts are drawn for up to {DRAWN_SECTIONS} sections and there are {len(views)}: report fewer results, or all with --charts all."
    return Page(
        title="Fine-tuning methods compared",
        lede=(views[0].headline,) if len(views) == 1 else (),
        measured=f"{what}, finished {moment(min(times))} to {moment(max(times))}."
        if times
        else "No records.",
        sections=views,
        overview=_overview(views) if len(views) > 1 else None,
        remarks=tuple(
            map(
                without_home,
                [
                    *report.remarks,
                    *([undrawn] if report.charts == "few" and not report.is_drawn else []),
                ],
            )
        ),
        silenced=report.silenced,
        within="".join(f", {name} up to {limit.written}" for name, limit in report.limits.items()),
    )


def _regression_lines(report: Report, recipe: str) -> list[str]:
    """Return the regression check's lines about a recipe or about the whole session."""
    if report.regressions is None:
        return []
    return [line.text for line in report.regressions.of_recipe(recipe).lines()]


def _overview(views: Sequence[SectionView]) -> Table:
    """A line a section: what to take, what sets it apart, how much there is to know about it."""
    lines = []
    for view in views:
        counts = {
            severity: sum(told.severity == severity for told in view.findings)
            for severity in SEVERITIES
        }
        found = ", ".join(
            f"{count} {severity}{'s' * (count > 1)}" for severity, count in counts.items() if count
        )
        apart = "; ".join(view.apart)
        items = (
            Item(view.headline),
            Item(str(len(view.cells.lines)), len(view.cells.lines)),
            Item(found or "none", counts["error"]),
            Item(apart),
        )
        lines.append(Line(view.name, items))
    headings = ("What to take", "Cells", "Findings", "Differs from the recipe's first section")
    return Table(
        "Section",
        headings,
        tuple(lines),
        frozenset({"What to take", "Findings", "Differs from the recipe's first section"}),
    )


def _drawn(section: Section) -> list[ChartView]:
    """The section's charts but confusion matrices, which the page has as tables; ids within them are the section's own."""
    return [
        ChartView(
            chart.name,
            chart.title,
            chart.description,
            _apart(svg(chart, inline=True), f"n{section.number}-"),
        )
        for chart in charts_of(section.comparison, section.recipe)
        if not chart.name.startswith("confusion-")
    ]


def _apart(drawing: str, prefix: str) -> str:
    return re.sub(r'( id="|url\(#|href="#)', lambda found: found[1] + prefix, drawing)


def parts_of(view: SectionView) -> list[tuple[str, str]]:
    """The parts that a section has, as (anchor, title)."""
    there = {
        "charts": view.charts,
        "classes": view.classes,
        "baseline": view.baseline or view.judged,
    }
    lacking = {name for name, what in there.items() if not what}
    return [(name, title) for name, title in PARTS.items() if name not in lacking]


def _rendered(page: Page) -> str:
    from markupsafe import Markup

    style, script = (
        (TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            page=page, style=Markup(style), script=Markup(script), script_hash=f"sha256-{digest}"
        )
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known: dict[str, Any] = {
        "parts_of": parts_of,
        "title_of": title_of,
        "how_to_read": SAID,
        "drawn": Markup,
    }
    known |= {
        "color_of": lambda method: style_of(method).color,
        "titles": {rule.id: rule.title for rule in RULES.values()},
    }
    made.globals.update(known)
    return made
