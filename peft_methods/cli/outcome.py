"""The outcome of a benchmark test: its records, and every reason to fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peft_methods.cli.setting_help import explained
from peft_methods.utils.words import seeds_of

if TYPE_CHECKING:
    from peft_methods.runs.record import Record
    from peft_methods.utils.errors import PeftMethodsError


@dataclass(frozen=True)
class Outcome:
    """The result of a benchmark: its records, and all reasons to fail."""

    records: tuple[Record, ...]
    problems: tuple[str, ...]


def problems_of(
    records: list[Record],
    prerequisites: list[Record],
    error: PeftMethodsError | None,
    silenced: tuple[str, ...],
) -> Iterator[str]:
    """Describe failed runs and findings. `error` is why the recipe could not be prepared."""
    from peft_methods.analysis import checks
    from peft_methods.report.text.notes import grouped_findings

    failed: dict[tuple[str, str], list[int]] = {}
    for record in records:
        if record.status not in {"ok", "skipped"}:
            message = record.message if error is None else explained(error)
            failed.setdefault((record.status, message), []).append(record.seed)
    for (status, message), seeds in failed.items():
        yield f"{seeds_of(seeds)} {status}: {message}"
    findings = checks.run_checks([*prerequisites, *records], silenced)
    errors = grouped_findings(finding for finding in findings if finding.severity == "error")
    yield from (str(replace(finding, subject=", ".join(of))) for finding, of in errors)
