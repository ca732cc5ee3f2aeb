"""Sections merged into one comparison, in which each section's name is used as a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from peft_methods.analysis.comparison import Comparison, Row
from peft_methods.analysis.ranking import Ranking
from peft_methods.analysis.sections import Section
from peft_methods.runs.record import Record


@dataclass(frozen=True)
class MergedComparison(Comparison):
    """Sections as one comparison, with the rows and rankings that each section has alone."""

    sections: tuple[Section, ...] = ()

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        return tuple(
            replace(row, recipe=section.name)
            for section in self._own_sections
            for row in section.comparison.rows()
        )

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """Intervals, pairwise comparisons, groups and the Pareto front of each section."""
        return {
            one.name: one.comparison.rankings[one.recipe]
            for one in self._own_sections
            if one.recipe in one.comparison.rankings
        }

    @cached_property
    def _own_sections(self) -> list[Section]:
        """The sections whose records this comparison has: a part of it may have some only."""
        names = {recipe for recipe, _ in self._by_row}
        return [section for section in self.sections if section.name in names]


def merge_sections(sections: Iterable[Section]) -> Comparison:
    """Merge sections into one comparison, in which each section's name is used as a recipe."""
    sections = tuple(sections)
    first = sections[0].comparison
    records = [
        _renamed(record, section.name)
        for section in sections
        for record in section.comparison.records
    ]
    notes = tuple(
        f"{section.name}: {'; '.join(section.differences)}"
        for section in sections
        if section.differences
    )
    return MergedComparison(
        tuple(records), notes, first.predictions, first.silenced, first.margin, sections
    )


def _renamed(record: Record, recipe: str) -> Record:
    if record.recipe_name == recipe:
        return record
    spec = replace(record.spec, recipe=replace(record.spec.recipe, name=recipe))
    return replace(record, spec=spec)
