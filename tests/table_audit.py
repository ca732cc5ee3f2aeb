"""How tests of whole tables run the audit, and the rules that belong to each kind of flaw.

Everything that depends on the audit's functions is here.
"""

from __future__ import annotations

from pathlib import Path

from peft_methods.analysis.checks import Finding
from peft_methods.analysis.external.audit import check_table
from peft_methods.analysis.external.tables import TableError, read_tables

# The rules that may report a kind of flaw.
RULES_OF_KIND: dict[str, tuple[str, ...]] = {
    "impossible count": ("V203",),
    "head not trained": ("V205",),
    "head alone trained": ("V206", "V211"),
    "nothing trained": ("V211", "V203"),
    "nothing frozen": ("V212", "V203"),
    "share": ("V213",),
    "head": ("V215",),
    "same count": ("V214", "V203"),
    "virtual tokens": ("V203",),
    "share of another": ("V213",),
    "above full": ("V417",),
    "rank memory": ("V418",),
    "too fast": ("V510",),
    "same peak": ("V406",),
    "below weights": ("V419", "V424"),
    "below arithmetic": ("V420",),
    "throughput": ("V421",),
    "steps": ("V422",),
    "energy": ("V423",),
    "test is validation": ("V307",),
    "zero": ("V308",),
    "chance": ("V301", "V308", "V309"),
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
    return [found for table in read_tables(path) for found in check_table(table.rows)]


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
