"""The rules: each reads records, or a table made elsewhere, and says what is wrong, with evidence and what to do.

V1xx is about data, V2xx about training, V3xx about results, V4xx about measuring, V5xx about comparing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from peft_methods.records import Record
from peft_methods.validity import comparison, data, measuring, results, training
from peft_methods.validity.base import REGISTRY, SCOPES, Finding, Rule, Severity, silenced
from peft_methods.validity.figures import Figures, figures_of, mean_figures

__all__ = ["RULES", "SCOPES", "Figures", "Finding", "Rule", "Severity", "judge", "judge_table", "silenced"]
assert all((data, training, results, measuring, comparison)), "importing them is what fills the registry"
RULES = dict(sorted(REGISTRY.items()))


def judge(records: Iterable[Record], silent: Collection[str] = ()) -> list[Finding]:
    """Every finding on these records but those of silenced rules.

    Cells without a result are left out, their status says it all; and trials of tuning, which are no rows of a comparison.
    """
    good = [record for record in records if record.status == "ok" and not record.cell.get("trial")]
    return [
        Finding(rule.id, rule.severity, *said) for rule in RULES.values() if rule.id not in silent for said in _said_of_records(rule, good)
    ]


def judge_table(rows: Sequence[Figures], silent: Collection[str] = ()) -> list[Finding]:
    """Every finding on the rows of a table; only rules that ask for no more than a table can say."""
    return [
        Finding(rule.id, rule.severity, *said) for rule in RULES.values() if rule.id not in silent for said in _said_of_rows(rule, rows)
    ]


def _said_of_records(rule: Rule, records: Sequence[Record]) -> Iterator[Sequence[str]]:
    """(subject, evidence, advice) of one rule on records."""
    by_method: dict[str, list[Record]] = {}
    for record in records:
        by_method.setdefault(f"{record.recipe_name}-{record.method_name}", []).append(record)
    if rule.scope == "comparison":
        for recipe in dict.fromkeys(record.recipe_name for record in records):
            yield from rule.check([mean_figures(seeds) for seeds in by_method.values() if seeds[0].recipe_name == recipe])
    elif rule.scope == "method":
        for name, seeds in by_method.items():
            yield from ((name, *said) for said in rule.check(seeds))
    else:
        for record in records:
            judged = record if rule.scope == "cell" else figures_of(record)
            subject = f"{record.recipe_name}-{record.method_name}-seed{record.seed}"
            yield from ((subject, *said) for said in rule.check(judged))


def _said_of_rows(rule: Rule, rows: Sequence[Figures]) -> Iterator[Sequence[str]]:
    if rule.scope == "row":
        yield from ((row.name, *said) for row in rows for said in rule.check(row))
    elif rule.scope == "comparison":
        yield from rule.check(rows)
