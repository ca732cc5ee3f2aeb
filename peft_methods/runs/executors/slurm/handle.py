"""A job from its start in the session to its end in Slurm."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from peft_methods.profiling.environment import package_versions
from peft_methods.runs.executors.base import Ended, Lost, Progress, RunEvent
from peft_methods.runs.executors.jobs import Done, Failure, PrepareJob, RunJob
from peft_methods.runs.executors.slurm.ends import End
from peft_methods.runs.executors.slurm.files import JobFiles
from peft_methods.runs.record import Record
from peft_methods.utils.hashing import content_hash

CHECK = "check-"  # how the names of checks of recipes begin


@dataclass(eq=False)
class SlurmHandle:
    """A job of the session. It has no `job_id` before it is submitted.

    `end` is set if sbatch refused it, and `is_reported` once the session knows. `ended_at` is when
    Slurm was first seen to have ended it.
    """

    name: str
    job: RunJob | PrepareJob
    rate: float | None
    job_id: str | None = None
    end: End | None = None
    is_reported: bool = False
    ended_at: float | None = None
    is_queued: bool = True
    has_result: bool = False
    requests: int = 0  # for stacks
    _offset: int = 0  # in the file of progress reports

    def news(self, files: JobFiles, names: Collection[str]) -> Iterator[RunEvent]:
        """Yield progress and end, as far as the folder has them. `names` are its files."""
        if files.progress.name in names:
            reports, offset = files.reports_from(self._offset)
            self.is_queued = self.is_queued and offset == self._offset
            self._offset = offset
            yield from (Progress(self, report) for report in reports if report)
        if files.result.name in names and not self.has_result:
            result = files.read_result()
            if result is not None:
                self.has_result = True
                yield self._ended(result)

    def _ended(self, result: tuple[str, Any]) -> RunEvent:
        """Return the event that a result of submitit stands for."""
        kind, value = result
        if kind == "success" and isinstance(value, Ended | Lost):
            return replace(value, handle=self)
        lines = str(value).strip().splitlines()
        reason = f"Slurm's job {self.job_id} failed: {lines[-1] if lines else 'no reason given'}"
        return Lost(self, "crashed", reason, False, "")

    def lost(self, end: End, last_line: str = "") -> RunEvent:
        """Return the event for an end without a result.

        If the user can change it, it ends the check of a recipe with one line.
        """
        which = f"Slurm's job {self.job_id}: " if self.job_id else ""
        reason = f"{which}{end.reason}{f' ({last_line})' if last_line else ''}"
        if isinstance(self.job, PrepareJob) and end.setting:
            message = f"recipe {self.job.recipe.name!r} could not be checked. {reason}."
            return Ended(self, Done(Failure(message, by_user=True, setting=end.setting)))
        return Lost(self, end.status, reason, end.transient, "")

    def is_over(self, end: End | None, now: float, patience: float) -> bool:
        """Whether Slurm ended the job so long ago that its result, if any, would be seen."""
        if end is None:
            self.ended_at = None
            return False
        self.ended_at = self.ended_at or now
        return now - self.ended_at >= patience

    def submit_again(self) -> None:
        """Forget the job in Slurm, so that the next submission has another one."""
        self.job_id = self.ended_at = None
        self.is_queued, self._offset = True, 0


def name_of(job: RunJob | PrepareJob) -> str:
    """Return the name of a job's work. It is the same in the next session with the same command."""
    if isinstance(job, RunJob):
        return job.name
    parts = [repr(job.recipe), [repr(one) for one in job.methods], job.device, asdict(job.needs)]
    return f"{CHECK}{content_hash([*parts, package_versions()])[:16]}"


def is_stale(result: tuple[str, Any]) -> bool:
    """Whether an earlier session's result is a stored record, which the session did not reuse.

    Then code, data or weights have changed since.
    """
    kind, value = result
    if kind != "success" or not isinstance(value, Ended) or value.done.not_stored:
        return False
    return isinstance(value.done.result, Record) and value.done.result.status == "ok"


def last_line(files: JobFiles) -> str:
    """Return the last line that a job printed before its work began, or ''."""
    with contextlib.suppress(OSError):
        lines = files.output.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
