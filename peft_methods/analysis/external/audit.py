"""The audit of tables made elsewhere: groups, findings, and what could not be judged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from peft_methods.analysis.checks import RULES, check_group
from peft_methods.analysis.checks.group import Group
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import Finding, Rule
from peft_methods.analysis.external.groups import groups_of

# Fields whose rules judge quality, time or memory.
ASPECTS: Mapping[str, frozenset[str]] = {
    "quality": frozenset(
        {"accuracy", "validation_accuracy", "validation_accuracies", "validation_losses"}
        | {"train_losses", "scores"}
    ),
    "time": frozenset({"train_seconds", "samples_per_second", "energy_joules"}),
    "memory": frozenset({"peak_memory", "maximum_memory"}),
}
# Fields that only this project's records have: no table has a column for them.
OF_RECORDS = frozenset(
    {"method_parameters", "expected_method_parameters", "head_parameters", "head_trained"}
    | {"head_quantized", "quality", "score", "trivial", "unscored", "has_learnt", "best_epoch"}
    | {"fell_back", "engine_note", "clock_mhz", "peak_is_reset"}
)
DEFAULTS = {one.name: getattr(ResultRow(""), one.name) for one in fields(ResultRow)}


@dataclass(frozen=True)
class Audit:
    """What the rules found in one table's rows.

    - `findings`: those of all groups; a subject that several groups have names its group.
    - `applied`: the rules whose fields are known for enough rows of some group.
    - `not_applied`: the ids of the other rules by the fields that they lack.
    """

    groups: tuple[Group, ...]
    findings: tuple[Finding, ...]
    applied: tuple[str, ...]
    not_applied: Mapping[tuple[str, ...], tuple[str, ...]]

    @property
    def rows(self) -> int:
        """The number of rows in all groups."""
        return sum(len(group.rows) for group in self.groups)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was ambiguous about the groups, each line once."""
        return tuple(dict.fromkeys(one for group in self.groups for one in group.remarks))

    @property
    def known(self) -> tuple[str, ...]:
        """The fields that some row has."""
        rows = [row for group in self.groups for row in group.rows]
        return tuple(name for name in DEFAULTS if any(is_known(row, name) for row in rows))

    @property
    def judged(self) -> tuple[str, ...]:
        """Which of quality, time and memory some rule judged."""
        used = {
            name
            for rule in self.applied
            for way in RULES[rule].needs
            if set(way) <= set(self.known)
            for name in way
        }
        return tuple(aspect for aspect, names in ASPECTS.items() if names & used)


def audit_rows(rows: Sequence[ResultRow], silent: Collection[str] = ()) -> Audit:
    """Group a table's rows and run every rule that is not silenced on each group."""
    groups = groups_of(rows)
    names = [{row.name for row in (*group.rows, *group.methods)} for group in groups]
    findings = [
        _within(group, finding, [other for other in names if other is not own])
        for group, own in zip(groups, names, strict=True)
        for finding in check_group(group, silent)
    ]
    applied: list[str] = []
    missing: dict[tuple[str, ...], list[str]] = {}
    for rule in RULES.values():
        if rule.id in silent or not is_of_tables(rule):
            continue
        lacking = _lacking(rule, groups)
        if lacking:
            missing.setdefault(lacking, []).append(rule.id)
        else:
            applied.append(rule.id)
    return Audit(
        groups,
        tuple(findings),
        tuple(applied),
        {names: tuple(rules) for names, rules in missing.items()},
    )


def check_table(rows: Sequence[ResultRow], silent: Collection[str] = ()) -> list[Finding]:
    """Return the findings on a table's rows, by the rules that need no more than a table."""
    return list(audit_rows(rows, silent).findings)


def _within(group: Group, finding: Finding, others: Sequence[set[str]]) -> Finding:
    """Name the finding's group, if another group has rows of the same names."""
    subjects = finding.subject.split(", ")
    is_unclear = any(name in other for other in others for name in (finding.subject, *subjects))
    if not is_unclear:
        return finding
    return replace(finding, subject=f"{finding.subject} [{group.name}]")


def is_known(row: ResultRow, name: str) -> bool:
    """Whether a row has a value for a field."""
    return bool(getattr(row, name) != DEFAULTS[name])


def is_of_tables(rule: Rule) -> bool:
    """Whether a table made elsewhere can have what the rule needs."""
    return any(not set(way) & OF_RECORDS for way in rule.needs)


def _lacking(rule: Rule, groups: Sequence[Group]) -> tuple[str, ...]:
    """Return the fields that a rule lacks in every group; empty if one has them.

    Of several ways to find something, it is the one that lacks the fewest.
    """
    found: list[tuple[str, ...]] = []
    for way in rule.needs:
        if set(way) & OF_RECORDS:
            continue
        for group in groups:
            rows = group.rows if rule.scope == "row" else group.methods
            full = [row for row in rows if all(is_known(row, name) for name in way)]
            if len(full) >= rule.rows:
                return ()
            lacking = tuple(
                name for name in way if sum(is_known(row, name) for row in rows) < rule.rows
            )
            found.append(lacking or way)
    return min(found, key=len, default=())
