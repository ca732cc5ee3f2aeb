"""The rules: each reads records, or a table made elsewhere, and says what is wrong, with evidence and what to do.

V1xx is about data, V2xx about training, V3xx about results, V4xx about measuring, V5xx about comparing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from peft_methods.records import Record
from peft_methods.validity import comparison, data, measuring, results, training
from peft_methods.validity.base import REGISTRY, SCOPES, Finding, Rule, Severity, silenced
from peft_methods.validity.figures import Figures, figures_of, mean_figures

__all__ = [
    "RULES",
    "SCOPES",
    "Figures",
    "Finding",
    "Rule",
    "Severity",
    "judge",
    "judge_table",
    "silenced",
]
assert all((data, training, results, measuring, comparison)), (
    "importing them is what fills the registry"
)
RULES = dict(sorted(REGISTRY.items()))


def judge(records: Iterable[Record], silent: Collection[str] = ()) -> list[Finding]:
    """Every finding on these records but those of silenced rules.

    Cells without a result are left out, their status says it all; and trials of tuning, which are no rows of a comparison.
    """
    judged = _Judged(
        [record for record in records if record.status == "ok" and not record.cell.get("trial")]
    )
    return [
        Finding(rule.id, rule.severity, *said)
        for rule in RULES.values()
        if rule.id not in silent
        for said in _said_of_records(rule, judged)
    ]


def judge_table(rows: Sequence[Figures], silent: Collection[str] = ()) -> list[Finding]:
    """Every finding on the rows of a table; only rules that ask for no more than a table can say."""
    return [
        Finding(rule.id, rule.severity, *said)
        for rule in RULES.values()
        if rule.id not in silent
        for said in _said_of_rows(rule, rows)
    ]


@dataclass(frozen=True)
class _Judged:
    """Records, and what rules of each scope are asked about: made once, and only if a rule asks."""

    records: Sequence[Record]

    @cached_property
    def by_method(self) -> dict[str, list[Record]]:
        return {
            name: [self.records[place] for place in places] for name, places in self._places.items()
        }

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, record in enumerate(self.records):
            found.setdefault(f"{record.recipe_name}-{record.method_name}", []).append(place)
        return found

    @cached_property
    def subjects(self) -> list[str]:
        return [
            f"{record.recipe_name}-{record.method_name}-seed{record.seed}"
            for record in self.records
        ]

    @cached_property
    def figures(self) -> list[Figures]:
        return [figures_of(record) for record in self.records]

    @cached_property
    def by_recipe(self) -> dict[str, list[Figures]]:
        found: dict[str, list[Figures]] = {}
        for name, seeds in self.by_method.items():
            own = [self.figures[place] for place in self._places[name]]
            found.setdefault(seeds[0].recipe_name, []).append(mean_figures(seeds, own))
        return found


def _said_of_records(rule: Rule, judged: _Judged) -> Iterator[Sequence[str]]:
    """(subject, evidence, advice) of one rule on records."""
    if rule.scope == "comparison":
        for rows in judged.by_recipe.values():
            yield from rule.check(rows)
    elif rule.scope == "method":
        for name, seeds in judged.by_method.items():
            yield from ((name, *said) for said in rule.check(seeds))
    else:
        for subject, asked in zip(
            judged.subjects, judged.records if rule.scope == "cell" else judged.figures, strict=True
        ):
            yield from ((subject, *said) for said in rule.check(asked))


def _said_of_rows(rule: Rule, rows: Sequence[Figures]) -> Iterator[Sequence[str]]:
    if rule.scope == "row":
        yield from ((row.name, *said) for row in rows for said in rule.check(row))
    elif rule.scope == "comparison":
        yield from rule.check(rows)
