"""What an audit says at its end: what was judged, and what could not be judged and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
# What a table's own rows are about, beside figures.
NO_FIGURES = frozenset(
    {"name", "line", "model", "method", "ranked", "rounding", "loss_rounding"}
    | {"architectures", "total_parameters"}
)


def closing_lines(audits: Sequence[Audit]) -> Iterator[str]:
    """Yield the lines: what was found, what was judged, and which rules were not asked and why."""
    if not any(audit.findings for audit in audits):
        rows = counted(sum(audit.rows for audit in audits), "row")
        asked = len({rule for audit in audits for rule in audit.asked})
        yield f"nothing found in {rows}, by the {counted(asked, 'rule')} that could be asked"
    yield _size(audits)
    if text := _not_judged(audits):
        yield text
    if text := _not_asked(audits):
        yield text


def _size(audits: Sequence[Audit]) -> str:
    groups = [group for audit in audits for group in audit.groups]
    sizes = [
        counted(len(audits), "table"),
        counted(sum(audit.rows for audit in audits), "row"),
        counted(len(groups), "group"),
    ]
    names = "; ".join(group.name for group in groups if group.name)
    asked = {rule for audit in audits for rule in audit.asked}
    rules = asked | {one for audit in audits for rules in audit.not_asked.values() for one in rules}
    return (
        f"Audited: {', '.join(sizes)}{f' ({names})' if names else ''}; "
        f"{len(asked)} of {counted(len(rules), 'rule')} asked."
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


def _not_asked(audits: Sequence[Audit]) -> str:
    asked = {rule for audit in audits for rule in audit.asked}
    lacking: dict[str, list[str]] = {}
    for audit in audits:
        for names, rules in audit.not_asked.items():
            reason = " and ".join(map(words_of, names))
            lacking.setdefault(reason, []).extend(
                rule
                for rule in rules
                if rule not in asked and all(rule not in known for known in lacking.values())
            )
    parts = [f"{reason} ({', '.join(rules)})" for reason, rules in lacking.items() if rules]
    return f"Not asked, for lack of {'; '.join(parts)}." if parts else ""


def words_of(name: str) -> str:
    """Return a field of `ResultRow` in words: 'peak memory'."""
    return WORDS.get(name, name.replace("_", " "))
