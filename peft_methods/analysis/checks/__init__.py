"""Validity rules: each one checks records, or a table made elsewhere, for one kind of mistake.

A finding gives the evidence in numbers and what to do about it. V1xx rules are about data, V2xx
about training, V3xx about results, V4xx about measurement, V5xx about the comparison and V6xx
about generated texts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from peft_methods.analysis.checks import (
    comparison,
    data,
    generation,
    isolation,
    measurement,
    predicted,
    quantized_work,
    results,
    table_counts,
    table_limits,
    table_ratios,
    table_scores,
    training,
)
from peft_methods.analysis.checks.group import Group
from peft_methods.analysis.checks.means import mean_row
from peft_methods.analysis.checks.row import ResultRow, row_of
from peft_methods.analysis.checks.rule import REGISTRY, Finding, Rule
from peft_methods.runs.record import Record

__all__ = ["RULES", "Finding", "Rule", "check_group", "run_checks"]
MODULES = (
    *(data, training, results, measurement, predicted, isolation, comparison),
    *(quantized_work, generation),
)
OF_TABLES = (table_counts, table_limits, table_ratios, table_scores)
assert all((*MODULES, *OF_TABLES)), "importing these modules fills the registry"
RULES = dict(sorted(REGISTRY.items()))


def run_checks(records: Iterable[Record], silent: Collection[str] = ()) -> list[Finding]:
    """Return the findings of every rule that is not silenced on these records.

    Only finished runs are checked: the status of the others already says what happened. Tuning
    trials are skipped too, since they are not part of a comparison.
    """
    checked = _CheckedRecords(
        [record for record in records if record.status == "ok" and record.role != "trial"]
    )
    return [
        _finding(rule, found, rows)
        for rule in RULES.values()
        if rule.id not in silent
        for found, rows in _findings_in_records(rule, checked)
    ]


def check_group(group: Group, silent: Collection[str] = ()) -> list[Finding]:
    """Return the findings on one group of a table, by the rules that need no more than a table."""
    return [
        _finding(rule, found, lines=lines)
        for rule in RULES.values()
        if rule.id not in silent
        for found, lines in _findings_in_group(rule, group)
    ]


def _finding(
    rule: Rule,
    found: Sequence[str],
    rows: frozenset[tuple[str, str]] = frozenset(),
    lines: tuple[int, ...] = (),
) -> Finding:
    subject, evidence, advice = found
    return Finding(rule.id, rule.severity, subject, evidence, advice, rows, lines)


@dataclass(frozen=True)
class _CheckedRecords:
    """The checked records, and what the rules of each scope get: computed once, on demand."""

    records: Sequence[Record]

    @cached_property
    def by_method(self) -> dict[str, list[Record]]:
        return {
            name: [self.records[index] for index in indices]
            for name, indices in self._indices.items()
        }

    @cached_property
    def _indices(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for index, record in enumerate(self.records):
            found.setdefault(f"{record.recipe_name}-{record.method_name}", []).append(index)
        return found

    @cached_property
    def subjects(self) -> list[str]:
        return [
            f"{record.recipe_name}-{record.method_name}-seed{record.seed}"
            for record in self.records
        ]

    @cached_property
    def dependents(self) -> dict[tuple[str, str], set[tuple[str, str]]]:
        """The rows that need each prerequisite, both as (recipe, method)."""
        found: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for record in self.records:
            for one in record.spec.prerequisites if record.role == "main" else ():
                of = found.setdefault((one.recipe.name, one.method.name), set())
                of.add((record.recipe_name, record.method_name))
        return found

    def rows_of(self, records: Iterable[Record]) -> frozenset[tuple[str, str]]:
        """Return the rows that these runs are part of, or needed for, as (recipe, method)."""
        found: set[tuple[str, str]] = set()
        for record in records:
            row = record.recipe_name, record.method_name
            found |= {row} if record.role == "main" else self.dependents.get(row, set())
        return frozenset(found)

    @cached_property
    def rows_of_each(self) -> list[frozenset[tuple[str, str]]]:
        """The `rows_of` each record. Those of a method's main runs are the same object."""
        found: dict[tuple[str, str, str], frozenset[tuple[str, str]]] = {}
        rows = []
        for record in self.records:
            key = record.recipe_name, record.method_name, record.role
            if key not in found:
                found[key] = self.rows_of([record])
            rows.append(found[key])
        return rows

    @cached_property
    def rows(self) -> list[ResultRow]:
        return [row_of(record) for record in self.records]

    @cached_property
    def by_recipe(self) -> dict[str, list[ResultRow]]:
        found: dict[str, list[ResultRow]] = {}
        for name, seeds in self.by_method.items():
            own = [self.rows[index] for index in self._indices[name]]
            found.setdefault(seeds[0].recipe_name, []).append(mean_row(seeds, own))
        return found


def _findings_in_records(
    rule: Rule, checked: _CheckedRecords
) -> Iterator[tuple[Sequence[str], frozenset[tuple[str, str]]]]:
    """Yield (subject, evidence, advice) and the rows of each finding of one rule on records."""
    if rule.scope == "comparison":
        for recipe, rows in checked.by_recipe.items():
            for found in rule.check(rows):
                names = found[0].split(", ")
                concerned = {(recipe, row.method) for row in rows if row.name in names}
                yield found, frozenset((name, method) for name, method in concerned if method)
    elif rule.scope == "method":
        for name, seeds in checked.by_method.items():
            for found in rule.check(seeds):
                yield (name, *found), checked.rows_of(seeds)
    elif rule.scope in ("run", "row"):
        items = checked.records if rule.scope == "run" else checked.rows
        of = zip(checked.subjects, checked.rows_of_each, items, strict=True)
        for subject, concerns, item in of:
            for found in rule.check(item):
                yield (subject, *found), concerns


def _findings_in_group(rule: Rule, group: Group) -> Iterator[tuple[Sequence[str], tuple[int, ...]]]:
    """Yield (subject, evidence, advice) and the lines of each finding of one rule on a group."""
    if rule.scope == "row":
        for row in group.rows:
            for found in rule.check(row):
                yield (group.subject_of(row), *found), (row.line,)
    elif rule.scope in ("comparison", "table"):
        for found in rule.check(group if rule.scope == "table" else list(group.methods)):
            yield found, group.lines_of(found[0])
