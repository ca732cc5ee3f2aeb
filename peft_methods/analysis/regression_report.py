"""The result of a regression check: its entries, their meaning and their text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from peft_methods.analysis.tolerances import Tolerance
from peft_methods.profiling.metrics import METRICS


@dataclass(frozen=True)
class Change:
    """Baseline and new value of one metric of one method.

    `worse` is in the tolerance's unit. `explained` is the part that chance explains (`noise`), None
    if that is unknown: the metric is then not judged. `limit` says what keeps `explained` large and
    what makes it smaller. `pace` is how much longer the machine takes for the same work, where
    `worse` is relative to that.
    """

    tolerance: Tolerance
    before: float
    now: float
    worse: float
    explained: float | None
    noise: str = "seeds"
    limit: str = ""
    pace: float | None = None

    @property
    def fails(self) -> bool:
        """Whether the metric is worse by more than the tolerance and more than chance explains."""
        return (
            self.tolerance.is_exceeded(self.worse)
            and self.explained is not None
            and self.worse > self.explained
        )

    @property
    def moved(self) -> bool:
        """Whether the metric is better or worse by more than the tolerance."""
        return self.tolerance.is_exceeded(abs(self.worse))

    @property
    def values(self) -> str:
        """'accuracy fell from 90.0 % to 88.0 %'."""
        metric, verb = METRICS[self.tolerance.metric], "rose" if self.now > self.before else "fell"
        return (
            f"{metric.name} {verb} from {metric.format(self.before)} to {metric.format(self.now)}"
        )

    def __str__(self) -> str:
        chance = (
            f"not judged: {self.limit}"
            if self.explained is None
            else f"{self.noise} explain {self.tolerance.formatted(self.explained)}"
        )
        pace = "" if self.pace is None else f" at the machine's pace ({self.pace:+.1%} time)"
        return (
            f"{self.values}, worse by {self.tolerance.formatted(self.worse)}{pace} "
            f"(tolerance {self.tolerance.formatted(self.tolerance.amount)}; {chance})"
        )


class EntryKind(Enum):
    """Meaning of an entry of a regression report."""

    REFERENCE = "reference"  # the baseline and tolerances used for a recipe
    NOTE = "note"  # limits of the comparison of one method
    SPEC_CHANGE = "spec_change"  # a difference between the run and the baseline's run
    FAILURE = "failure"  # a regression, a missing method or metric, a reused record
    PASSED = "passed"  # nothing failed
    SAVED = "saved"  # a new baseline was written
    NOT_SAVED = "not_saved"  # a new baseline could not be written
    NOT_CHECKED = "not_checked"  # the session ended before all runs were trained


FAILING = frozenset({EntryKind.FAILURE, EntryKind.NOT_SAVED})
PREFIXES = {
    EntryKind.FAILURE: "regression check: ",
    EntryKind.NOT_SAVED: "the baseline was not written: ",
}
WITH_SUBJECT = frozenset(
    {EntryKind.REFERENCE, EntryKind.NOTE, EntryKind.SPEC_CHANGE, EntryKind.FAILURE}
)
EVERY_METHOD = "every method"


@dataclass(frozen=True)
class RegressionEntry:
    """One statement of a regression report.

    `recipe` is None for a statement about the whole session, `method` for one about a whole recipe,
    `metric` where the statement is not about a single metric. `text` does not repeat the subject.
    """

    kind: EntryKind
    text: str
    recipe: str | None = None
    method: str | None = None
    metric: str | None = None

    @property
    def is_failure(self) -> bool:
        """Whether this entry makes the session fail."""
        return self.kind in FAILING

    @property
    def subject(self) -> str:
        """'RECIPE-METHOD', 'RECIPE', or an empty text."""
        return "-".join(part for part in (self.recipe, self.method) if part)

    def __str__(self) -> str:
        return _line(self.kind, self.subject, self.text)


def _line(kind: EntryKind, subject: str, text: str) -> str:
    about = f"{subject}: " if subject and kind in WITH_SUBJECT else ""
    differs = "differs from the baseline: " if kind is EntryKind.SPEC_CHANGE else ""
    return f"{PREFIXES.get(kind, '')}{about}{differs}{text}"


@dataclass(frozen=True)
class ReportLine:
    """A printable line of a regression report."""

    text: str
    is_failure: bool


@dataclass(frozen=True)
class RegressionReport:
    """Result of a regression check. `checked` lists the (recipe, method) pairs of the session."""

    entries: tuple[RegressionEntry, ...] = ()
    checked: tuple[tuple[str, str], ...] = ()

    @property
    def failures(self) -> tuple[RegressionEntry, ...]:
        """The entries that make the session fail."""
        return tuple(entry for entry in self.entries if entry.is_failure)

    def of_recipe(self, recipe: str) -> RegressionReport:
        """Return the part about one recipe, including entries about the whole session."""
        return RegressionReport(
            tuple(entry for entry in self.entries if entry.recipe in {None, recipe}),
            tuple(pair for pair in self.checked if pair[0] == recipe),
        )

    def lines(self) -> list[ReportLine]:
        """Return the entries as text: references, notes, spec changes, then all others.

        Notes and spec changes that several methods share are printed once.
        """
        grouped = (EntryKind.NOTE, EntryKind.SPEC_CHANGE)
        references = [one for one in self.entries if one.kind is EntryKind.REFERENCE]
        others = [one for one in self.entries if one.kind not in {EntryKind.REFERENCE, *grouped}]
        return [
            *(ReportLine(str(entry), False) for entry in references),
            *(ReportLine(text, False) for kind in grouped for text in self._grouped(kind)),
            *(ReportLine(str(entry), entry.is_failure) for entry in others),
        ]

    def _grouped(self, kind: EntryKind) -> list[str]:
        """Group entries by text; a text that all checked methods share is about every method."""
        subjects_of: dict[str, list[str]] = {}
        for entry in self.entries:
            if entry.kind is kind:
                subjects_of.setdefault(entry.text, []).append(entry.subject)
        texts_of: dict[str, list[str]] = {}
        for text, subjects in subjects_of.items():
            is_shared = len(subjects) == len(self.checked)
            subject = EVERY_METHOD if is_shared else ", ".join(subjects)
            texts_of.setdefault(subject, []).append(text)
        return [_line(kind, subject, "; ".join(texts)) for subject, texts in texts_of.items()]


def merge(reports: Iterable[RegressionReport]) -> RegressionReport:
    """Return one report with the entries of several."""
    found = list(reports)
    return RegressionReport(
        tuple(entry for report in found for entry in report.entries),
        tuple(dict.fromkeys(pair for report in found for pair in report.checked)),
    )
