"""The states in which Slurm's jobs end, as the events of runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from peft_methods.runs.executors.slurm.commands import JobState
from peft_methods.runs.record import Status

NO_FOLDER, NO_PYTHON = "66:0", "67:0"  # the exit codes of a job's own checks
NO_OUTPUT = "0:53"  # Slurm could not open the job's log file
MEMORY = "Ask for more with slurm mem, for example mem=32G, or halve the batch"


@dataclass(frozen=True)
class End:
    """The end of a job that left no result: a record's status and reason.

    A `transient` cause may not occur again. After a `free` end the run is submitted again, without
    counting as an attempt. `setting` is what a user may change.
    """

    status: Status
    reason: str
    transient: bool = False
    free: bool = False
    setting: str = ""


STATES: dict[str, End] = {
    "BOOT_FAIL": End("crashed", "its node did not boot", transient=True),
    "CANCELLED": End("crashed", "it was cancelled (scancel)"),
    "COMPLETED": End("crashed", "it left no result", transient=True),
    "DEADLINE": End("timeout", "its deadline was over"),
    "FAILED": End("crashed", "it failed", transient=True),
    "NODE_FAIL": End("crashed", "its node failed", transient=True),
    "OUT_OF_MEMORY": End("oom", f"memory ran out. {MEMORY}"),
    "PREEMPTED": End("crashed", "it was preempted", transient=True, free=True),
    "REVOKED": End("crashed", "it was revoked", transient=True),
    "TIMEOUT": End("timeout", "its time limit (setting slurm time) was over; give more"),
}
FORGOTTEN = End("crashed", "Slurm does not know it any more, and it left no result", transient=True)
# Reasons of waiting jobs that will never start.
NEVER = {
    "AccountNotAllowed",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "JobHeldAdmin",
    "PartitionConfig",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSNotAllowed",
}
# Slurm's reason for a job that it holds because a node could not start it.
NOT_LAUNCHED = "launch failed requeued held"


def end_of(job: JobState) -> End | None:
    """Return the end that a state stands for; None for a job that waits or runs."""
    reason = job.reason.replace("_", " ") if job.state == "PENDING" else ""
    if reason in NEVER:
        return End("failed", f"it will never start ({job.reason})", setting="slurm")
    if reason == NOT_LAUNCHED:
        return End(
            "crashed",
            f"its node could not start it ({reason}); `sinfo -R` says which nodes have a problem",
            transient=True,
        )
    return STATES.get(job.state)


def end_of_failed(exit_code: str, node: str, folder: Path) -> End | None:
    """Return the end of a job whose own checks failed on its node; None for another one."""
    where = f"node {node}" if node else "its node"
    if exit_code in (NO_FOLDER, NO_OUTPUT):
        return End(
            "failed",
            f"{where} does not see the folder {folder} of this machine. Choose a folder for "
            "results that all nodes share",
            setting="results",
        )
    if exit_code == NO_PYTHON:
        return End(
            "failed", f"{where} has no {sys.executable}. Install the environment where nodes see it"
        )
    return None
