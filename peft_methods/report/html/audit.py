"""The page of an audit: each table as it was read, with its findings beside the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peft_methods.analysis.checks import RULES
from peft_methods.analysis.checks.rule import Finding
from peft_methods.analysis.external.audit import Audit
from peft_methods.analysis.external.tables import PlainTable
from peft_methods.report.html.audit_counts import CountView, counts_of
from peft_methods.report.html.rendering import TEMPLATES, environment
from peft_methods.report.text.audit import NOT_APPLIED, closing_lines, not_applied, words_of_all
from peft_methods.utils.files import write_whole
from peft_methods.utils.words import counted

FILE = "audit.html"
ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class CellView:
    """A cell as it was read, with the numbers of the findings that are about it."""

    text: str
    severity: str
    marks: tuple[int, ...]


@dataclass(frozen=True)
class FindingView:
    """A finding with its number on the page."""

    number: int
    finding: Finding
    title: str


@dataclass(frozen=True)
class TableView:
    """One table with its findings, remarks and groups, and what its counts were compared with.

    `lacking` has the fields that rules lack, with the ids and titles of the rules.
    """

    title: str
    headers: tuple[str, ...]
    understood: tuple[bool, ...]
    lines: tuple[tuple[CellView, ...], ...]
    findings: tuple[FindingView, ...]
    remarks: tuple[str, ...]
    groups: tuple[str, ...]
    closing: tuple[str, ...]
    lacking: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    counts: tuple[CountView, ...]


def write_audit(folder: Path, tables: Sequence[PlainTable], audits: Sequence[Audit]) -> Path:
    """Write the page into a folder, which is made if needed, and return its path."""
    from markupsafe import Markup

    views, first = [], 1
    for table, audit in zip(tables, audits, strict=True):
        views.append(_view(table, audit, first))
        first += len(audit.findings)
    counts = {
        severity: sum(one.severity == severity for audit in audits for one in audit.findings)
        for severity in ORDER
    }
    styles = [
        (TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "audit.css")
    ]
    page = (
        environment()
        .get_template("audit.html.j2")
        .render(
            tables=views,
            summary=", ".join(counted(count, severity) for severity, count in counts.items()),
            style=Markup("\n".join(styles)),
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    write_whole(path, page)
    return path


def _view(table: PlainTable, audit: Audit, first: int) -> TableView:
    ordered = sorted(audit.findings, key=lambda one: (ORDER[one.severity], one.lines, one.rule))
    findings = tuple(
        FindingView(number, one, RULES[one.rule].title) for number, one in enumerate(ordered, first)
    )
    lines = tuple(
        tuple(
            _cell(table, findings, line, header, text)
            for header, text in zip(table.headers, texts, strict=True)
        )
        for line, texts in enumerate(table.cells)
    )
    return TableView(
        table.title,
        table.headers,
        tuple(header in table.fields for header in table.headers),
        lines,
        findings,
        (*table.ignored, *audit.remarks),
        tuple(group.name for group in audit.groups if group.name),
        tuple(line for line in closing_lines([audit]) if not line.startswith(NOT_APPLIED)),
        tuple(
            (words_of_all(names), tuple((rule, RULES[rule].title) for rule in rules))
            for names, rules in not_applied([audit]).items()
        ),
        tuple(counts_of(audit)),
    )


def _cell(
    table: PlainTable, findings: Sequence[FindingView], line: int, header: str, text: str
) -> CellView:
    name = table.fields.get(header)
    about = [
        one
        for one in findings
        if line in one.finding.lines and name in _fields_of(one.finding, table)
    ]
    worst = min((one.finding.severity for one in about), key=ORDER.__getitem__, default="")
    return CellView(text, worst, tuple(one.number for one in about))


def _fields_of(finding: Finding, table: PlainTable) -> frozenset[str]:
    """The fields that the rule looks at and the table has; the row's name if it has none."""
    known = set(table.fields.values())
    wanted = {name for way in RULES[finding.rule].needs for name in way} - {"name", "method"}
    if finding.rule in NARROWED:
        wanted = {
            name for name, words in NARROWED[finding.rule].items() if words in finding.evidence
        }
    return frozenset(wanted & known) or frozenset({"name"})


# Rules that look at several columns, one after the other: a column's words in the evidence.
NARROWED = {
    "V502": {
        "epochs": " epochs",
        "steps_per_epoch": "steps per epoch",
        "train_rows": "train rows",
        "batch_size": "rows per batch",
        "max_length": "maximum tokens",
    },
    "V503": {"data": "data ", "test_rows": "test rows"},
    "V505": {"device": "device ", "precision": "precision "},
    "V506": {"train_seconds": "LoRA's time", "peak_memory": "MB less", "maximum_memory": "MB less"},
}
