"""How tests of whole tables run the audit, and the rules that belong to each kind of flaw.

Everything that depends on the audit's functions is here.
"""

from __future__ import annotations

from pathlib import Path

from peft_methods.analysis.checks import Finding, check_table
from peft_methods.analysis.external import tables
from peft_methods.analysis.external.tables import TableError

# Whether the audit reads tables as they are published. Until then only plain CSV and JSON are read.
READS_PUBLISHED = hasattr(tables, "read_tables")

# The rules that may report a kind of flaw. Without one, the audit has no rule for it yet.
RULES_OF_KIND: dict[str, tuple[str, ...]] = {
    "impossible count": ("V203",),
    "head not trained": ("V205",),
    "head alone trained": ("V206",),
    "nothing trained": (),
    "nothing frozen": (),
    "share": (),
    "head": (),
    "same count": (),
    "virtual tokens": (),
    "share of another": (),
    "above full": (),
    "rank memory": (),
    "too fast": (),
    "same peak": ("V406",),
    "below weights": (),
    "below arithmetic": (),
    "throughput": (),
    "steps": (),
    "energy": (),
    "test is validation": (),
    "zero": (),
    "chance": ("V301",),
    "perfect": ("V303",),
    "not of its log": ("V304",),
    "not finite": ("V302",),
    "constant loss": ("V208",),
    "below maximum": ("V409",),
    "epochs": ("V502",),
    "data": ("V502", "V503"),
    "rate": ("V504",),
    "device": ("V505",),
    "qlora too fast": ("V506",),
}


def findings_in(path: Path) -> list[Finding]:
    """Return the findings in all tables of a file; raise `TableError` where it is refused."""
    if not READS_PUBLISHED:
        return check_table(tables.read_table(path).rows)
    return [found for table in tables.read_tables(path) for found in check_table(table.rows)]


def errors_in(path: Path) -> list[str]:
    """Return the errors found, or why the file is refused."""
    try:
        return [str(found) for found in findings_in(path) if found.severity == "error"]
    except TableError as error:
        return [f"refused: {error}"]


def is_found(kind_or_rule: str, subject: str, findings: list[Finding]) -> bool:
    """Whether a finding of this rule, or kind of flaw, is about the subject."""
    rules = RULES_OF_KIND.get(kind_or_rule, (kind_or_rule,))
    return any(found.rule in rules and subject in found.subject for found in findings)
