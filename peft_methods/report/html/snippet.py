"""The report's table as a piece of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.questions import Recommendation
from peft_methods.analysis.recommendations import recommend
from peft_methods.report.formatting import without_home
from peft_methods.report.html.rendering import TEMPLATES, environment
from peft_methods.report.html.table import Table
from peft_methods.report.html.tables import comparison_table
from peft_methods.report.text.left_out import left_out_lines
from peft_methods.report.text.notes import reasons
from peft_methods.report.text.setup import setup_line


@dataclass(frozen=True)
class SnippetPart:
    """One recipe: its setup, table and recommendations, and what its rows lack."""

    setup: str
    table: Table
    answers: tuple[Recommendation, ...]
    notes: tuple[str, ...]


def html_table(comparison: Comparison, limits: Constraints | None = None) -> str:
    """Format the comparison's tables as HTML that styles nothing outside of itself."""
    from markupsafe import Markup

    style = (TEMPLATES / "snippet.css").read_text(encoding="utf-8")
    template = environment().get_template("snippet.html.j2")
    return template.render(parts=list(_parts(comparison, limits)), style=Markup(style))


def _parts(comparison: Comparison, limits: Constraints | None) -> Iterator[SnippetPart]:
    answers = recommend(comparison, limits)
    for recipe, ranking in comparison.rankings.items():
        rows = [row for row in comparison.rows() if row.recipe == recipe]
        notes = [*left_out_lines(ranking, rows), *reasons(rows)]
        yield SnippetPart(
            without_home(setup_line(comparison, recipe)),
            comparison_table(rows, ranking),
            tuple(answer for answer in answers if answer.recipe == recipe),
            tuple(map(without_home, notes)),
        )
