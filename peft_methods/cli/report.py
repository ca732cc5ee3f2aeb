"""`peft-methods report RESULTS… -o DIR`: report stored records, without training."""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.cli.command_text import pytest_command
from peft_methods.cli.parsing import folder_of, limits_of, margin_of, paper_of, silenced_of
from peft_methods.report.requirements import check_libraries
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.sanitize import secrets_known
from peft_methods.utils.words import counted

if TYPE_CHECKING:
    from peft_methods.analysis.constraints import Constraints
    from peft_methods.analysis.sections import Section


class ResultsError(PeftMethodsError):
    """Results that hold nothing to report."""


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the command `report`."""
    command = commands.add_parser(
        "report",
        help="an HTML report of stored records",
        description="Report the stored records of any number of sessions, without training: "
        "DIR/report.html, the charts in the same folder, and a paper. Records that differ in more "
        "than method and seed get separate sections. Exit code: 0, 2 if no record "
        "can be read, 4 for a bad option.",
    )
    command.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULTS",
        help="folders of results (.peft/results) or record files",
    )
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the report"
    )
    command.add_argument(
        "--paper",
        type=Path,
        metavar="FILE.pdf",
        help="also write a two-column paper (needs the extra `paper`)",
    )
    command.add_argument(
        "--silence", metavar="V105,V301", help="skip these rules; the report lists them"
    )
    command.add_argument(
        "--budget",
        metavar="LIMITS",
        help="recommend only methods within these limits, e.g. memory=8GB,time=10min",
    )
    command.add_argument(
        "--margin",
        metavar="POINTS",
        help="differences up to this many points of quality count as none (default: 1pp)",
    )
    command.add_argument(
        "--charts",
        choices=("few", "all", "none"),
        default="few",
        help="few: only with up to 3 sections (default)",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report and return the exit code.

    Raises `PeftMethodsError` for results that cannot be reported or written.
    """
    silent = silenced_of([arguments.silence] if arguments.silence is not None else ())
    limits, margin = limits_of(arguments.budget), margin_of(arguments.margin)
    check_libraries()
    folder_of(arguments.output, "output")
    paper_of(arguments.paper)  # may be in the folder that the line above makes
    with _without_garbage_collection(), secrets_known():
        return _report(arguments, silent, limits, margin)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Turn off garbage collection within the block.

    The collector would traverse thousands of live records again and again, for no garbage: this
    took a quarter of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _report(
    arguments: argparse.Namespace, silent: tuple[str, ...], limits: Constraints, margin: float
) -> int:
    from peft_methods.analysis.merged import merge_sections
    from peft_methods.analysis.sections import group_records
    from peft_methods.cli.stored_records import StoredRecords
    from peft_methods.report.html.page import Report, write_report

    stored = StoredRecords(arguments.results)
    for line in (*stored.unreadable, *stored.damaged):
        print(line, file=sys.stderr)
    if not any(record.role == "main" for record in stored.records):
        raise ResultsError(
            "the given results hold no records of a comparison. Give a folder of results "
            "(.peft/results) or record files."
        )
    grouped = group_records(stored.records, stored.predictions, silent, margin)
    sections, remarks = _with_figures(grouped)
    path = write_report(
        Report(sections, (*stored.damaged, *remarks), silent, limits, charts=arguments.charts),
        arguments.output,
        pytest_command,
    )
    print(f"written: {path} ({counted(len(stored.records), 'record')})")
    if arguments.paper is not None:
        from peft_methods.report.paper.document import write_paper

        path, *_ = write_paper(merge_sections(sections), arguments.paper, limits)
        print(f"written: {path}")
    for line in stored.predictions.unreadable:
        print(line, file=sys.stderr)
    return 0


def _with_figures(sections: Sequence[Section]) -> tuple[Sequence[Section], tuple[str, ...]]:
    """Return the sections to report, and a message for each section that is left out.

    A section whose runs all failed is left out if there are others.
    """
    with_results = [section for section in sections if section.has_results]
    if not with_results:
        return sections, ()
    return with_results, tuple(_failed(section) for section in sections if not section.has_results)


def _failed(section: Section) -> str:
    from peft_methods.analysis.comparison import title_of

    records = [record for record in section.comparison.records if record.role == "main"]
    methods = ", ".join(dict.fromkeys(title_of(record.method_name) for record in records))
    why = next((record.message for record in records if record.message), records[0].status)
    return f"Left out, since all its runs failed: {section.recipe}, {methods}: {why}"
