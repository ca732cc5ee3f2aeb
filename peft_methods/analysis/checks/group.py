"""A group of an audited table: the rows that can be compared with one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from peft_methods.analysis.checks.row import ResultRow
from peft_methods.methods.registry import METHODS


@dataclass(frozen=True)
class Group:
    """The rows of one model, data set and task.

    - `name`: what the rows have in common, as the table writes it; empty for the only group.
    - `rows`: each line.
    - `methods`: one row for each method and setting, with the means over its seeds; it has the
      line of its first seed.
    - `lines`: the lines of each entry of `methods`.
    - `remarks`: what was ambiguous, one line each.
    """

    name: str
    rows: tuple[ResultRow, ...]
    methods: tuple[ResultRow, ...]
    lines: tuple[tuple[int, ...], ...]
    remarks: tuple[str, ...] = ()

    @property
    def full(self) -> ResultRow | None:
        """The row of full fine-tuning, the first if there are several."""
        return next((row for row in self.methods if row.method == METHODS.reference), None)

    def subject_of(self, row: ResultRow) -> str:
        """Return what a finding calls a row: its name, with its place if other rows share it."""
        is_unique = bool(row.name) and [one.name for one in self.rows].count(row.name) == 1
        return row.name if is_unique else f"{row.name} (row {row.line + 1})".strip()

    def methods_and_seeds(self) -> Iterator[tuple[str, ResultRow]]:
        """The methods, and each seed of those with several, with what a finding calls them."""
        seeds = [line for lines in self.lines for line in lines if len(lines) > 1]
        yield from ((row.name, row) for row in self.methods)
        yield from ((self.subject_of(row), row) for row in self.rows if row.line in seeds)

    def partial(self) -> Iterator[ResultRow]:
        """The rows of the registered methods that train a part of the weights."""
        for row in self.methods:
            info = METHODS.info(row.method)
            if info is not None and info.scope == "part":
                yield row

    def lines_of(self, subject: str) -> tuple[int, ...]:
        """The lines of the entries that a finding's subject names, separated by commas."""
        within = f", {subject}, "
        found = {
            line
            for row, lines in zip(self.methods, self.lines, strict=True)
            if f", {row.name}, " in within
            for line in lines
        } | {
            row.line
            for row in self.rows
            if f", {row.name}, " in within or f", {self.subject_of(row)}, " in within
        }
        return tuple(sorted(found))
