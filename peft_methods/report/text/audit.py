"""What an audit says at its end: what was judged, and what could not be judged and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from peft_methods.analysis.external.audit import ASPECTS, Audit
from peft_methods.utils.words import counted

# Fields of `ResultRow` in words; of the others the underscores become spaces.
WORDS = {
    "architectures": "a known model",
    "trainable": "trainable parameters",
    "trainable_share": "the share of trainable parameters",
    "total": "all parameters",
    "total_parameters": "the model's size",
    "targets": "target modules",
    "data": "the data set",
    "named_data": "the data set",
    "rates": "the learning rates tried",
    "majority": "the majority class",
    "train_seconds": "training time",
    "train_seconds_deviation": "the spread of the training time",
    "step_seconds": "step time",
    "samples_per_second": "rows a second",
    "energy_joules": "energy",
    "maximum_memory": "maximum memory",
    "class_counts": "rows by class",
    "versions": "versions",
    "method": "a known method",
    "scores": "scores",
}
NOT_APPLIED = "Not applied"  # how the line about rules that lack something begins
LONGEST = 200  # characters of a line that lists rules by what they lack
MOST = 5  # fields that a shorter line names
# What a table's own rows are about, beside figures.
NO_FIGURES = frozenset(
    {"name", "line", "model", "method", "ranked", "rounding", "loss_rounding"}
    | {"architectures", "total_parameters", "named_data"}
)


def closing_lines(audits: Sequence[Audit]) -> Iterator[str]:
    """Yield the lines: what was found, what was judged, and which rules were not applied and why.

    Where many rules were not applied, the last line has the fields that most of them lack;
    `not_applied` has all.
    """
    if not any(audit.findings for audit in audits):
        rows = counted(sum(audit.rows for audit in audits), "row")
        applied = len({rule for audit in audits for rule in audit.applied})
        yield f"nothing found in {rows}, by the {counted(applied, 'rule')} that could be applied"
    yield _size(audits)
    if text := _not_judged(audits):
        yield text
    if text := _shortly(not_applied(audits)):
        yield text


def not_applied(audits: Sequence[Audit]) -> Mapping[tuple[str, ...], Sequence[str]]:
    """Return the ids of the rules that were applied to no table, by the fields that they lack."""
    applied = {rule for audit in audits for rule in audit.applied}
    lacking: dict[tuple[str, ...], list[str]] = {}
    for audit in audits:
        for names, rules in audit.not_applied.items():
            known = applied | {rule for rules in lacking.values() for rule in rules}
            if new := [rule for rule in rules if rule not in known]:
                lacking.setdefault(names, []).extend(new)
    return lacking


def _size(audits: Sequence[Audit]) -> str:
    groups = [group for audit in audits for group in audit.groups]
    sizes = [
        counted(len(audits), "table"),
        counted(sum(audit.rows for audit in audits), "row"),
        counted(len(groups), "group"),
    ]
    names = "; ".join(group.name for group in groups if group.name)
    applied = {rule for audit in audits for rule in audit.applied}
    rules = applied.union(*not_applied(audits).values())
    return (
        f"Audited: {', '.join(sizes)}{f' ({names})' if names else ''}; "
        f"{len(applied)} of {counted(len(rules), 'rule')} applied."
    )


def _not_judged(audits: Sequence[Audit]) -> str:
    judged = {aspect for audit in audits for aspect in audit.judged}
    missing = [aspect for aspect in ASPECTS if aspect not in judged]
    if not missing:
        return ""
    known = dict.fromkeys(
        words_of(name) for audit in audits for name in audit.known if name not in NO_FIGURES
    )
    *most, last = missing
    without = f"{', '.join(most)} or {last}" if most else last
    only = f": the table has only {', '.join(known) or 'names'}" if len(missing) > 1 else ""
    return f"No {without} was judged{only}."


def _shortly(lacking: Mapping[tuple[str, ...], Sequence[str]]) -> str:
    """Format the rules by what they lack, or, if these are many, what most of them lack."""
    if not lacking:
        return ""
    parts = [f"{words_of_all(names)} ({', '.join(rules)})" for names, rules in lacking.items()]
    text = f"{NOT_APPLIED}, for lack of {'; '.join(parts)}."
    if len(text) <= LONGEST:
        return text
    fields = Counter(name for names, rules in lacking.items() for name in names for _ in rules)
    most = [f"{words_of(name)} ({count})" for name, count in fields.most_common(MOST)]
    others = f" and {counted(len(fields) - MOST, 'other field')}" if len(fields) > MOST else ""
    rules = counted(sum(map(len, lacking.values())), "rule")
    return f"{NOT_APPLIED}: {rules}, for lack of {', '.join(most)}{others}; --report lists all."


def words_of_all(names: Sequence[str]) -> str:
    """Return fields of `ResultRow` in words: 'peak memory and a known method'."""
    return " and ".join(map(words_of, names))


def words_of(name: str) -> str:
    """Return a field of `ResultRow` in words: 'peak memory'."""
    return WORDS.get(name, name.replace("_", " "))
