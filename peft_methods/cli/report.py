"""`python -m peft_methods report RESULTS… -o DIR`: report stored records, without training."""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from peft_methods.analysis.checks.rule import parse_silenced
from peft_methods.analysis.comparison import title_of
from peft_methods.analysis.constraints import Constraints, parse_constraints
from peft_methods.analysis.sections import Section, group_records, merge_sections
from peft_methods.report.html.page import Report, write_report
from peft_methods.report.paper.document import write_paper
from peft_methods.report.paper.typst import check_requirements as check_paper
from peft_methods.report.requirements import check_folder, check_libraries
from peft_methods.runs.record import Record
from peft_methods.runs.store import Store, StoreError, without_attempts
from peft_methods.tasks.base import Predictions
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.sanitize import secrets_known


class ResultsError(PeftMethodsError):
    """Results that hold nothing to report."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command `report`."""
    command = commands.add_parser(
        "report",
        help="an HTML report of stored records",
        description="Report the stored records of any number of sessions, without training: "
        "DIR/report.html, the charts in the same folder, and a paper. Records that differ in more "
        "than method and seed get separate sections. Exit code: 0, or 2 if no record can be read.",
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
    check_libraries("report")
    check_folder(arguments.output, "--output")
    if arguments.paper is not None:
        check_paper("--paper")
        check_folder(arguments.paper.absolute().parent, "--paper")
    silent = parse_silenced(arguments.silence, "--silence") if arguments.silence is not None else ()
    limits = parse_constraints(arguments.budget) if arguments.budget is not None else {}
    with _without_garbage_collection(), secrets_known():
        return _report(arguments, silent, limits)


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


def _report(arguments: argparse.Namespace, silent: tuple[str, ...], limits: Constraints) -> int:
    stored = StoredRecords(arguments.results)
    for line in stored.unreadable:
        print(line, file=sys.stderr)
    if not any(not record.is_source for record in stored.records):
        raise ResultsError(
            "the given results hold no records of a comparison. Give a folder of results "
            "(.peft/results) or record files."
        )
    predictions = StoredPredictions(stored.folders)
    sections, remarks = _with_figures(group_records(stored.records, predictions, silent))
    path = write_report(
        Report(sections, remarks, silent, limits, charts=arguments.charts), arguments.output
    )
    print(f"written: {path} ({len(stored.records)} records)")
    if arguments.paper is not None:
        path, *_ = write_paper(merge_sections(sections), arguments.paper, limits)
        print(f"written: {path}")
    for line in predictions.unreadable:
        print(line, file=sys.stderr)
    return 0


def _with_figures(sections: Sequence[Section]) -> tuple[Sequence[Section], tuple[str, ...]]:
    """Return the sections to report, and a message for each section that is left out.

    A section whose runs all failed is left out if there are others.
    """
    with_figures = [section for section in sections if section.has_figures]
    if not with_figures:
        return sections, ()
    return with_figures, tuple(_failed(section) for section in sections if not section.has_figures)


def _failed(section: Section) -> str:
    records = [record for record in section.comparison.records if not record.is_source]
    methods = ", ".join(dict.fromkeys(title_of(record.method_name) for record in records))
    why = next((record.message for record in records if record.message), records[0].status)
    return f"Left out, since all its runs failed: {section.recipe}, {methods}: {why}"


class StoredRecords:
    """The records of folders and files, the newest of each fingerprint.

    `folders` maps a fingerprint to the folder that holds the record's predictions.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self.unreadable: list[str] = []
        self.folders: dict[str, Path] = {}
        found: dict[str, Record] = {}
        for path in self._files(places):
            try:
                record = Store(path.parent).read(path)
            except StoreError as error:
                self.unreadable.append(str(error))
                continue
            if record.identity not in found or record.finished > found[record.identity].finished:
                found[record.identity], self.folders[record.identity] = record, path.parent
        self.records = without_attempts(list(found.values()))

    def _files(self, places: Sequence[Path]) -> Iterator[Path]:
        for place in places:
            if place.is_dir():
                paths = sorted(place.glob("*.json"))
                if not paths:
                    self.unreadable.append(f"{place} holds no records. Give a folder of results.")
                yield from paths
            else:
                yield place


class StoredPredictions(Mapping[str, Predictions]):
    """Predictions by fingerprint, read on demand and not cached.

    Unreadable ones are missing from the mapping, and their errors are listed in `unreadable`.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.unreadable: list[str] = []
        self._folders = folders

    def __getitem__(self, identity: str) -> Predictions:
        try:
            found = Store(self._folders[identity]).read_predictions_of(identity)
        except StoreError as error:
            self.unreadable.append(str(error))
            found = None
        if found is None:
            raise KeyError(identity)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)
