"""A chart and its input: the rows, records and ranking of one recipe."""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peft_methods.analysis.baseline import slug
from peft_methods.analysis.comparison import Comparison, MetricSummary, Row
from peft_methods.analysis.ranking import Ranking
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.schema import DEFAULT_METRIC
from peft_methods.report.formatting import MISSING
from peft_methods.runs.record import Record
from peft_methods.tasks.base import Task
from peft_methods.tasks.metrics import Metric
from peft_methods.tasks.registry import task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Chart:
    """One chart of one recipe.

    `name` is the file stem and the same for every recipe: "accuracy" shows the selection metric,
    whatever it is. `title` describes the content, with its unit. `description` gives the important
    numbers in sentences, as alternative text. `draw` makes a new figure at every call. `method` is
    set for a chart of one method alone, whose numbers the HTML page shows as a table; `shows` then
    completes "Fig. 1 shows".
    """

    name: str
    title: str
    description: str
    draw: Callable[[], Drawing]
    recipe: str = ""
    method: str = ""
    shows: str = ""

    def __post_init__(self) -> None:
        """Make both texts printable: they contain names that the user chose."""
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "description", printable(self.description))

    def _repr_svg_(self) -> str:
        """Return the SVG that a notebook displays."""
        from peft_methods.report.charts.rendering import svg

        return svg(self)


@dataclass(frozen=True)
class RecipeComparison:
    """One recipe of a comparison.

    `rows` are in table order. `records` has the main runs, without prerequisite runs.
    """

    recipe: str
    rows: tuple[Row, ...]
    records: tuple[Record, ...]
    ranking: Ranking

    @property
    def task(self) -> Task:
        """The recipe's task, whose views the report shows."""
        return task_of(self.records[0].spec.recipe)

    @property
    def quality(self) -> Metric:
        """The metric that the methods are compared by."""
        return METRICS[self.ranking.metric]

    @property
    def epoch_quality(self) -> Metric:
        """The metric that was measured on the validation rows after every epoch."""
        if self.ranking.metric == DEFAULT_METRIC:
            return self.quality
        return METRICS[self.records[0].spec.recipe.selection_metric]

    @property
    def has_random_weights(self) -> bool:
        """Whether the weights are random, which makes quality meaningless."""
        return not all(record.spec.recipe.has_quality for record in self.records)

    def records_of(self, method: str) -> list[Record]:
        """A method's successful runs, ordered by seed."""
        found = [
            record
            for record in self.records
            if record.method_name == method and record.status == "ok"
        ]
        return sorted(found, key=lambda record: record.seed)

    def rows_with(self, name: str) -> list[Row]:
        """Rows that have a value of this metric."""
        return [row for row in self.rows if name in row.metrics]


def select_recipe(comparison: Comparison, recipe: str) -> RecipeComparison:
    """Select the part of a comparison that belongs to this recipe."""
    records = tuple(
        record
        for record in comparison.records
        if record.recipe_name == recipe and record.role == "main"
    )
    # A comparison of these records only: rows() scans all records.
    rows = tuple(replace(comparison, records=records).rows())
    return RecipeComparison(recipe, rows, records, comparison.rankings[recipe])


def format_value(metric: Metric, figure: MetricSummary | None) -> str:
    """Format a value: '34.2 ± 0.9 s', '34.2 s' for one seed, '–' if missing."""
    if figure is None:
        return MISSING
    if figure.deviation is None or metric.is_count:
        return metric.format(figure.mean)
    return metric.with_spread(figure.mean, figure.deviation)


def label_of(row: Row, width: int = 24) -> str:
    """Format the method's title on at most two lines, plus the number of seeds if some failed."""
    seeds = (
        [f"{len(row.seeds)} of {len(row.seeds) + len(row.missing)} seeds"]
        if row.seeds and row.missing
        else []
    )
    return "\n".join([on_two_lines(row.title, width), *seeds])


def on_two_lines(text: str, width: int) -> str:
    """Wrap text to at most two lines of `width` characters.

    A longer text keeps its beginning and its end, because names of one family differ there.
    """
    lines = textwrap.wrap(printable(text), width) or [MISSING]
    if len(lines) > 2:
        end = textwrap.wrap(printable(text)[::-1], width - 2)[0][::-1]
        lines = [lines[0], f"… {end}"]
    return "\n".join(lines)


def printable(text: str) -> str:
    """Replace unprintable characters by blanks, so that every font and XML accepts the text."""
    return "".join(character if character.isprintable() else " " for character in text)


def file_stem(text: str) -> str:
    """Turn a name into a file stem: unchanged if it is safe, else a slug and a hash of the name."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
        return text
    return f"{slug(text)}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def missing_note(rows: Iterable[Row]) -> str:
    """Format ' QLoRA: skipped.' for every row without any value; empty if there is none."""
    return "".join(
        f" {row.title}: {row.missing[0].status}." for row in rows if not row.metrics and row.missing
    )


def with_missing_note(notes: Iterable[str], rows: Iterable[Row]) -> list[str]:
    """Append the rows without any value to the notes below a chart."""
    return [*notes, *filter(None, [missing_note(rows).strip()])]


def join_titles(rows: Sequence[Row]) -> str:
    """Join titles: 'LoRA, IA3 and QLoRA'. With more than six, name five and count the rest."""
    titles = [row.title for row in rows]
    if len(titles) > 6:
        titles = [*titles[:5], f"{len(titles) - 5} more"]
    return " and ".join(filter(None, [", ".join(titles[:-1]), *titles[-1:]]))
