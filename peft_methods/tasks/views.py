"""Views of a task's results as plain values. Reports render them without knowing the task."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.tasks.metrics import Unit


@dataclass(frozen=True)
class TableView:
    """A table of numbers over `runs` runs. `about` heads the column of `rows`' names.

    `values` has one line per row and one value per column; None is missing. `columns` are the
    headings, each with the unit of its values. `note` is a remark in sentences.
    """

    name: str
    title: str
    about: str
    columns: tuple[tuple[str, Unit], ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    runs: int
    note: str = ""


@dataclass(frozen=True)
class MatrixView:
    """Counts of `examples` over `runs` runs, by two labels.

    `rows` and `columns` are the singular names of what the axes list. `counts` has one line per
    label of the rows. `title` completes "METHOD: ", `shows` completes "Fig. 1 shows" with {method}
    for the method's title, `description` gives the important numbers in sentences.
    """

    name: str
    title: str
    shows: str
    description: str
    rows: str
    columns: str
    examples: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    runs: int

    def shares(self) -> tuple[tuple[float | None, ...], ...]:
        """Return each count as a share of its row; None in rows without any."""
        return tuple(
            tuple(count / total if (total := sum(line)) else None for count in line)
            for line in self.counts
        )


@dataclass(frozen=True)
class TextsView:
    """A table of texts. `about` heads the column of `rows`' names, `columns` are the headings.

    `values` has one line per row and one text per column. Texts are data: reports escape them.
    """

    name: str
    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ScatterView:
    """True and predicted numbers of `examples` over `runs` runs: one point (x, y) each.

    `x` and `y` are what the axes show, in the same unit, so that a diagonal shows where both are
    equal. `title`, `shows` and `description` are those of a `MatrixView`. `note` says which of
    the examples are drawn.
    """

    name: str
    title: str
    shows: str
    description: str
    x: str
    y: str
    examples: str
    points: tuple[tuple[float, float], ...]
    note: str
    runs: int


View = TableView | MatrixView | TextsView | ScatterView
