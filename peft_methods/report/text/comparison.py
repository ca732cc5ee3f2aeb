"""The comparison table: for the terminal, as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from peft_methods.analysis.comparison import Comparison, Row
from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.data_sets import summarize_data_sets
from peft_methods.analysis.learning_curve import curves_of, main_part
from peft_methods.analysis.models import compare_models
from peft_methods.analysis.questions import Recommendation
from peft_methods.analysis.recommendations import recommend
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.families import by_family
from peft_methods.report.formatting import MISSING
from peft_methods.report.text.columns import (
    Cell,
    Column,
    TableRows,
    column,
    missing_columns,
    usual_columns,
)
from peft_methods.report.text.costs import cost_tables
from peft_methods.report.text.curve import curve_parts
from peft_methods.report.text.data_sets import summary_parts
from peft_methods.report.text.layout import Layout
from peft_methods.report.text.models import models_parts
from peft_methods.report.text.notes import notes
from peft_methods.report.text.ranking import ranking_table
from peft_methods.report.text.setup import setup_line
from peft_methods.utils import sanitize

PLAIN = Layout()
GITHUB = Layout(style="github", escape=sanitize.markdown)


def terminal_table(
    comparison: Comparison, limits: Constraints | None = None, layout: Layout = PLAIN
) -> str:
    """Format the full comparison for the terminal: setup, tables, recommendations, and notes."""
    lines = [layout.prose(note.text, note.kind, note.subject) for note in notes(comparison)]
    return "\n\n".join([*_parts(comparison, limits, layout), *lines])


def markdown_table(comparison: Comparison, limits: Constraints | None = None) -> str:
    """Format the full comparison as GitHub Markdown. Untrusted text is escaped."""
    lines = [f"- {GITHUB.escape(note.text)}" for note in notes(comparison)]
    return "\n\n".join([*_parts(comparison, limits, GITHUB), *lines]) + "\n"


def _parts(comparison: Comparison, limits: Constraints | None, layout: Layout) -> Iterator[str]:
    """Yield for each recipe: setup, comparison, ranking, costs, recommendations, learning curve.

    Of a learning curve, only the largest size has tables of its own. Several recipes are followed
    by their summary.
    """
    curves = {curve.main.recipe: curve for curve in curves_of(comparison)}
    main = main_part(comparison)
    answers = recommend(main, limits)
    for recipe, ranking in main.rankings.items():
        rows = [row for row in main.rows() if row.recipe == recipe]
        yield layout.prose(setup_line(main, recipe), "title")
        yield from _comparison_table(TableRows(tuple(rows), ranking), layout)
        yield from filter(None, [ranking_table(ranking, rows, layout)])
        yield from cost_tables(rows, layout)
        listed = [answer for answer in answers if answer.recipe == recipe]
        if listed:
            yield _recommendations(listed, limits or {}, layout)
        if recipe in curves:
            yield from curve_parts(curves[recipe], layout)
    for compared in compare_models(comparison):
        yield from models_parts(compared, layout)
    if (summary := summarize_data_sets(comparison)) is not None:
        yield from summary_parts(summary, layout)


def _recommendations(answers: Sequence[Recommendation], limits: Constraints, layout: Layout) -> str:
    within = "".join(f", {name} up to {limit.written}" for name, limit in limits.items())
    lines = [
        layout.prose(f"- {answer}", "title", f"- {layout.escape(answer.question)}:")
        if layout.style == "simple"
        else f"- {layout.escape(str(answer))}"
        for answer in answers
    ]
    blank = [""] if layout.style == "github" else []
    return "\n".join([layout.escape(f"From these figures alone{within}:"), *blank, *lines])


def _comparison_table(table: TableRows, layout: Layout) -> Iterator[str]:
    """Yield the table, and a line that names the usual columns it has no place for."""
    if layout.columns:
        yield _table(table, [column(name) for name in layout.columns], layout)
        return
    choices = usual_columns(table)
    fitting = (one for one in choices if layout.fits(_headings(one), _texts(table, one, layout)))
    shown = next(fitting, choices[-1])
    yield _table(table, shown, layout)
    if missing := missing_columns(shown, choices[0]):
        how = f" {layout.how_to_choose}" if layout.how_to_choose else ""
        text = f"Not shown at a width of {layout.width}: {', '.join(missing)}.{how}"
        yield layout.prose(text, "note")


def _headings(columns: Sequence[Column]) -> list[str]:
    return ["Method", *(one.heading for one in columns)]


def _texts(table: TableRows, columns: Sequence[Column], layout: Layout) -> list[list[str]]:
    """Return the table's cells without colours."""
    return _lines(table, columns, replace(layout, paint=PLAIN.paint))


def _table(table: TableRows, columns: Sequence[Column], layout: Layout) -> str:
    return layout.table(_headings(columns), _lines(table, columns, layout))


def _lines(table: TableRows, columns: Sequence[Column], layout: Layout) -> list[list[str]]:
    """Return the table's cells, with a line before each family of methods if there are many."""
    cells, lines = [one.cells(table) for one in columns], []
    for family, numbers in by_family([row.method for row in table.rows]):
        if family:
            lines.append([layout.paint(layout.escape(family), "note"), *[""] * len(columns)])
        lines += [
            _line(table.rows[number], [found[number] for found in cells], layout)
            for number in numbers
        ]
    return lines


def tracked_tables(
    comparison: Comparison, limits: Constraints
) -> dict[str, tuple[list[dict[str, Any]], str]]:
    """Return each recipe's rows (every metric's mean, by method) and its table as Markdown."""
    found = {}
    for recipe in dict.fromkeys(row.recipe for row in comparison.rows()):
        records = tuple(one for one in comparison.records if one.recipe_name == recipe)
        own = replace(comparison, records=records)
        rows = [{"method": row.method, **_means(row)} for row in own.rows()]
        found[recipe] = rows, markdown_table(own, limits)
    return found


def _means(row: Row) -> dict[str, float | None]:
    return {name: row.metrics[name].mean if name in row.metrics else None for name in METRICS}


def _line(row: Row, cells: Sequence[Cell], layout: Layout) -> list[str]:
    """Format a row; without any figure, its status stands in the first column."""
    title = layout.escape(row.title)
    if not row.metrics:
        status = layout.paint(layout.escape(row.missing[0].status), "error")
        return [title, status, *[MISSING] * (len(cells) - 1)]
    if row.missing:
        failed = f"{len(row.missing)} of {len(row.missing) + len(row.seeds)}"
        wide, narrow = f" ({failed} seeds failed)", f"\n  {failed} failed"
        title += wide if layout.width is None else narrow
    return [
        title,
        *(layout.paint(cell.text, "best" if cell.is_best else "plain") for cell in cells),
    ]
