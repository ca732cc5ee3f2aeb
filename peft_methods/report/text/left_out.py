"""Methods that are left out of recommendations and the Pareto front, and silenced rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peft_methods.analysis.checks import RULES
from peft_methods.analysis.comparison import Row
from peft_methods.analysis.ranking import Ranking


def left_out_groups(ranking: Ranking, rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """Return the measured methods with an error finding, by the ids of the rules."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.metrics and (rules := ranking.left_out.get(row.method)):
            found.setdefault(rules, []).append(row)
    return found


def left_out_lines(ranking: Ranking, rows: Sequence[Row]) -> list[str]:
    """Name the methods that are left out, one line per reason."""
    return [
        f"{', '.join(row.title for row in found)}: left out of the recommendations and the Pareto "
        f"front because of {'an error' if len(rules) == 1 else 'errors'}: {named_rules(rules)}."
        for rules, found in left_out_groups(ranking, rows).items()
    ]


def named_rules(rules: Iterable[str]) -> str:
    """List rules with their titles: 'V105 (Classes are …), V301 (…)'."""
    return ", ".join(RULES[rule].named for rule in rules)


def silenced_line(rules: Iterable[str]) -> str:
    """Name the rules that were not checked."""
    return f"Silenced rules (not checked): {named_rules(rules)}."
