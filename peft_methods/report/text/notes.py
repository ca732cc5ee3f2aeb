"""Lines below a table: missing results, retried runs, costs and findings."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.analysis.checks import RULES
from peft_methods.analysis.checks.rule import Finding
from peft_methods.analysis.comparison import Comparison, Row, title_of
from peft_methods.report.text.costs import COST_NOTE, cost_table
from peft_methods.report.text.ranking import ranking_notes
from peft_methods.runs.record import Record
from peft_methods.tasks.metrics import in_seconds

BEST = "*"


MAX_SIMILAR = 3  # findings listed in full if they differ in their numbers only


def notes(comparison: Comparison) -> list[str]:
    """Lines below the tables: how to read them, reasons for missing results, costs, findings."""
    rows = comparison.rows()
    finished = next((r for r in comparison.records if r.status == "ok"), None)
    lines = []
    if finished is not None:
        lines.append(
            f"Accuracy and F1 in %, mean ± standard deviation over seeds; {BEST} best of its "
            "column. Train time: training steps only. "
            f"Peak memory: {finished.environment['memory_kind']}, training only."
        )
    if any(cost_table([row], "simple") for row in rows):
        lines.append(COST_NOTE)
    if any(len(row.seeds) == 1 for row in rows):
        lines.append(
            "One seed: no spread. Differences between methods may be chance; "
            "an interval covers one trained model only, over test examples."
        )
    lines += ranking_notes(comparison)
    lines += reasons(rows)
    lines += [
        f"{r.method_name} seed {r.seed}: {r.message}"
        for r in comparison.records
        if r.status == "ok" and r.message
    ]
    lines += attempts(comparison.records)
    lines += list(source_costs(rows))
    lines += list(comparison.notes)
    lines += finding_lines(comparison)
    if comparison.silenced:
        rules = ", ".join(f"{rule} ({RULES[rule].title})" for rule in comparison.silenced)
        lines.append(f"Silenced rules (not checked): {rules}")
    return lines


def reasons(rows: Sequence[Row]) -> list[str]:
    """Explain missing results: one line per reason, with all methods and seeds it applies to."""
    affected: dict[tuple[str, str], dict[str, list[int]]] = {}
    for row in rows:
        for record in row.missing:
            seeds_of = affected.setdefault((record.status, record.message), {})
            seeds_of.setdefault(row.title, []).append(record.seed)
    lines = []
    for (status, message), seeds in affected.items():
        every_seed = all(
            len(seeds[row.title]) == len(row.missing) and not row.seeds
            for row in rows
            if row.title in seeds
        )
        subjects = [
            title if every_seed else f"{title} seed {', '.join(map(str, found))}"
            for title, found in seeds.items()
        ]
        lines.append(f"{', '.join(subjects)}: {status}: {message}")
    return lines


def attempts(records: Sequence[Record]) -> list[str]:
    """List the runs that were retried, and how their earlier attempts ended."""
    return [
        f"{title_of(record.method_name)} seed {record.seed}"
        f"{' (prerequisite)' * (record.role != 'main')}: attempt {len(record.attempts) + 1}; "
        f"earlier attempts: {'; '.join(record.attempts)}"
        for record in records
        if record.attempts
    ]


def grouped_findings(comparison: Comparison) -> list[tuple[Finding, tuple[str, ...]]]:
    """Merge findings with the same text. Each is returned with all runs or rows it applies to."""
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in comparison.findings():
        groups.setdefault(
            (finding.rule, finding.severity, finding.evidence, finding.advice), []
        ).append(finding)
    return [(found[0], tuple(finding.subject for finding in found)) for found in groups.values()]


def finding_lines(comparison: Comparison) -> list[str]:
    """Format one line per finding.

    If more than MAX_SIMILAR findings differ only in their numbers, list the first ones and count
    the rest.
    """
    by_advice: dict[tuple[str, str, str], list[tuple[Finding, tuple[str, ...]]]] = {}
    for finding, subjects in grouped_findings(comparison):
        key = finding.rule, finding.severity, finding.advice
        by_advice.setdefault(key, []).append((finding, subjects))
    lines = []
    for (rule, severity, advice), found in by_advice.items():
        shown = found if len(found) <= MAX_SIMILAR else found[: MAX_SIMILAR - 1]
        lines += [
            f"{rule} {severity} {plural_count(subjects)}: {finding.evidence} → {advice}"
            for finding, subjects in shown
        ]
        if len(found) > len(shown):
            more = sum(len(subjects) for _, subjects in found[len(shown) :])
            lines.append(
                f"{rule} {severity} {more} more runs, with other values; "
                "the HTML report lists them all"
            )
    return lines


def plural_count(subjects: Sequence[str]) -> str:
    """Name a single run, and count several."""
    return subjects[0] if len(subjects) == 1 else f"{len(subjects)} runs"


def source_costs(rows: Sequence[Row]) -> list[str]:
    """Report the training time of each method's prerequisite runs, one line per method."""
    return [
        f"{row.title}: its prerequisite runs were trained once, "
        f"{in_seconds(row.mean('source_seconds'))} in total, not included in its train time."
        for row in rows
        if "source_seconds" in row.metrics
    ]
