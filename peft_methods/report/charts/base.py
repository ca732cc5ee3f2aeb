"""What a chart is, and what it is drawn from: one recipe's rows, records and ranking."""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peft_methods.baseline import slug
from peft_methods.comparing import Comparison, Figure, Row
from peft_methods.metrics import METRICS, Metric
from peft_methods.records import Record
from peft_methods.report.shown import NOTHING
from peft_methods.standing import Standing

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Chart:
    """One chart of one recipe.

    `name` is a file's stem and the same for every recipe: "accuracy" shows quality, whatever the recipe selects by. `title`
    says what is shown, with its unit; `description` has the figures that matter in plain sentences, for who cannot see it.
    `draw` makes a new figure each time.
    """

    name: str
    title: str
    description: str
    draw: Callable[[], Drawing]
    recipe: str = ""

    def __post_init__(self) -> None:
        """Names from outside stand in both texts."""
        object.__setattr__(self, "title", plain(self.title))
        object.__setattr__(self, "description", plain(self.description))

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        from peft_methods.report.charts.rendering import svg

        return svg(self)


@dataclass(frozen=True)
class Compared:
    """One recipe of a comparison. `rows` are in the order of the tables; `records` are those of cells, sources left out."""

    recipe: str
    rows: tuple[Row, ...]
    records: tuple[Record, ...]
    ranking: Standing

    @property
    def quality(self) -> Metric:
        """What the recipe selects by."""
        return METRICS[self.ranking.metric]

    @property
    def is_random(self) -> bool:
        """Whether the weights were random, so that nothing of quality means anything."""
        return any(record.cell["recipe"]["model"]["weights"] == "random" for record in self.records)

    def of(self, method: str) -> list[Record]:
        """A method's finished cells, by seed."""
        found = [
            record
            for record in self.records
            if record.method_name == method and record.status == "ok"
        ]
        return sorted(found, key=lambda record: record.seed)

    def having(self, name: str) -> list[Row]:
        """Rows that have this figure."""
        return [row for row in self.rows if name in row.figures]


def compared(comparison: Comparison, recipe: str) -> Compared:
    """The part of a comparison that is of this recipe."""
    records = tuple(
        record
        for record in comparison.records
        if record.recipe_name == recipe and not record.is_source
    )
    rows = tuple(
        replace(comparison, records=records).rows()
    )  # of these alone: rows() looks through all records
    return Compared(recipe, rows, records, comparison.standings[recipe])


def written(metric: Metric, figure: Figure | None) -> str:
    """'34.2 ± 0.9 s', '34.2 s' where one seed has no spread, '–' where nothing is known."""
    if figure is None:
        return NOTHING
    if figure.deviation is None or metric.is_counted:
        return metric.format(figure.mean)
    return metric.with_spread(figure.mean, figure.deviation)


def label_of(row: Row, width: int = 24) -> str:
    """The method's title on at most two lines, and how many of its seeds these figures are from where some failed."""
    some = (
        [f"{len(row.seeds)} of {len(row.seeds) + len(row.missing)} seeds"]
        if row.seeds and row.missing
        else []
    )
    return "\n".join([on_two_lines(row.title, width), *some])


def on_two_lines(text: str, width: int) -> str:
    """Lines of at most so many letters; of a long text its beginning and its end, where names of one family differ."""
    lines = textwrap.wrap(plain(text), width) or [NOTHING]
    if len(lines) > 2:
        end = textwrap.wrap(plain(text)[::-1], width - 2)[0][::-1]
        lines = [lines[0], f"… {end}"]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text that every font and XML can take: what cannot be printed is a blank."""
    return "".join(character if character.isprintable() else " " for character in text)


def stem(text: str) -> str:
    """A name as that of a file: itself where it can be one, else what is left of it and a few letters that keep it apart."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
        return text
    return f"{slug(text)}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def without_figures(rows: Iterable[Row]) -> str:
    """' QLoRA: skipped.' for every row that has no figures at all; empty where there is none."""
    return "".join(
        f" {row.title}: {row.missing[0].status}." for row in rows if not row.figures and row.missing
    )


def noted(notes: Iterable[str], rows: Iterable[Row]) -> list[str]:
    """Notes for under a chart that shows some of these rows, with who has no figures at all."""
    return [*notes, *filter(None, [without_figures(rows).strip()])]


def listed(rows: Sequence[Row]) -> str:
    """'LoRA, IA3 and QLoRA'; of many the first few and how many more."""
    titles = [row.title for row in rows]
    if len(titles) > 6:
        titles = [*titles[:5], f"{len(titles) - 5} more"]
    return " and ".join(filter(None, [", ".join(titles[:-1]), *titles[-1:]]))
