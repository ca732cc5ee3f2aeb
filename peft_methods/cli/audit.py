"""`peft-methods audit FILE`: run the validity rules on results made elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.cli.audit_options import add_reading_options, mapping_of
from peft_methods.cli.parsing import silenced_of
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.sanitize import visible
from peft_methods.utils.words import counted

if TYPE_CHECKING:
    from peft_methods.analysis.checks.rule import Finding
    from peft_methods.analysis.external.tables import PlainTable

CLEAN, FOUND = 0, 1  # exit codes


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the command `audit`."""
    command = commands.add_parser(
        "audit",
        help="check a table of results made elsewhere",
        description="Check a table of several methods: what cannot be right in it, why, and what "
        "to do. Columns may be missing. Units go into a column's name or behind its values. Exit "
        "code: 0 for nothing but notes, 1 for errors or warnings, 2 for an unusable "
        "file, 4 for a bad option.",
    )
    command.add_argument(
        "file",
        type=Path,
        help="a table (CSV, Markdown, HTML, LaTeX, JSON), a folder of runs, or one of this "
        "project's records",
    )
    add_reading_options(command)
    command.add_argument(
        "--silence", metavar="V105,V301", help="skip these rules; the output lists them"
    )
    command.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write a page (audit.html): the table as it was read, and each finding at its cell",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each finding and what was judged, and return the exit code.

    Raises `PeftMethodsError` for a file or folder that cannot be checked.
    """
    from peft_methods.report.text.left_out import silenced_line

    silent = silenced_of([arguments.silence] if arguments.silence is not None else ())
    path: Path = arguments.file
    outcome = _of_folder if path.is_dir() and _holds_records(path) else _of_file
    try:
        findings, closing, remarks = outcome(path, silent, arguments)
    except PeftMethodsError:
        if not path.is_dir() or outcome is _of_folder:
            raise
        findings, closing, remarks = _of_folder(path, silent, arguments)  # names unreadable records
    for remark in remarks:
        print(visible(remark), file=sys.stderr)
    for finding in findings:
        print(finding)
    for line in closing:
        print(visible(line))
    if silent:
        print(silenced_line(silent))
    return FOUND if any(finding.severity != "note" for finding in findings) else CLEAN


Outcome = tuple[Sequence["Finding"], Sequence[str], Sequence[str]]  # findings, closing, remarks


def _of_file(path: Path, silent: Collection[str], arguments: argparse.Namespace) -> Outcome:
    from peft_methods.analysis.external.audit import audit_rows
    from peft_methods.analysis.external.tables import read_tables
    from peft_methods.report.text.audit import closing_lines

    tables = read_tables(path, arguments.table, mapping_of(arguments.map))
    audits = [audit_rows(table.rows, silent) for table in tables]
    remarks = [
        remark
        for table, audit in zip(tables, audits, strict=True)
        for remark in (*table.ignored, *audit.remarks)
    ]
    findings = [
        finding if len(tables) == 1 else replace(finding, subject=f"{finding.subject} [{name}]")
        for name, audit in zip(_names(tables), audits, strict=True)
        for finding in audit.findings
    ]
    closing = [*closing_lines(audits)]
    if arguments.report is not None:
        from peft_methods.report.html.audit import write_audit

        closing.append(f"report: {write_audit(arguments.report, tables, audits)}")
    return findings, closing, remarks


def _names(tables: Sequence[PlainTable]) -> list[str]:
    """Return the title of each table, with its place where titles are alike."""
    titles = [table.title for table in tables]
    return [
        title if title and titles.count(title) == 1 else f"{title}, table {place}".strip(", ")
        for place, title in enumerate(titles, 1)
    ]


def _holds_records(path: Path) -> bool:
    from peft_methods.runs.store import Store

    return bool(Store(path).records()[0])


def _of_folder(path: Path, silent: Collection[str], arguments: argparse.Namespace) -> Outcome:
    from peft_methods.analysis.checks import run_checks
    from peft_methods.analysis.external.tables import TableError
    from peft_methods.runs.store import Store
    from peft_methods.utils.errors import OptionError

    if arguments.report is not None:
        raise OptionError(
            "--report is for tables made elsewhere. For a folder of records use "
            "'peft-methods report', whose page has their findings."
        )
    records, bad = Store(path).records()
    if not records:
        unreadable = f" (unreadable: {'; '.join(map(str, bad))})" if bad else ""
        raise TableError(
            f"{path} holds no records{unreadable}. Give a folder of results (.peft/results), "
            "or a CSV or JSON table."
        )
    findings = run_checks(records, silent)
    nothing = f"nothing found in {counted(len(records), 'record')}, by all rules"
    return findings, () if findings else (nothing,), tuple(map(str, bad))
