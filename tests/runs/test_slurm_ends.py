"""Ends of Slurm's jobs without a result, as statuses and reasons of records."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from builders import make_record
from peft_methods.runs.executors.base import Ended
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.jobs import Done
from peft_methods.runs.executors.scratch import JOBS
from peft_methods.runs.executors.slurm.commands import JobState
from peft_methods.runs.executors.slurm.ends import end_of, end_of_failed
from peft_methods.runs.executors.slurm.executor import SlurmExecutor
from peft_methods.runs.executors.slurm.files import JobFolder


@pytest.mark.parametrize(
    ("state", "status", "transient"),
    [
        ("BOOT_FAIL", "crashed", True),
        ("CANCELLED", "crashed", False),
        ("COMPLETED", "crashed", True),
        ("DEADLINE", "timeout", False),
        ("FAILED", "crashed", True),
        ("NODE_FAIL", "crashed", True),
        ("OUT_OF_MEMORY", "oom", False),
        ("PREEMPTED", "crashed", True),
        ("TIMEOUT", "timeout", False),
    ],
)
def test_bad_state_is_a_status_with_a_reason(state: str, status: str, transient: bool) -> None:
    end = end_of(JobState(state, "None"))
    assert end is not None
    assert (end.status, end.transient) == (status, transient)
    assert end.reason


@pytest.mark.parametrize("reason", ["launch failed requeued held", "launch_failed_requeued_held"])
def test_job_that_a_node_could_not_start_is_tried_again(reason: str) -> None:
    """Slurm holds it for an administrator; a new job may get another node."""
    end = end_of(JobState("PENDING", reason))
    assert end is not None
    assert (end.status, end.transient) == ("crashed", True)
    assert "could not start it" in end.reason


def test_preempted_job_is_submitted_again_without_counting_as_an_attempt() -> None:
    free = {
        state
        for state in ("PREEMPTED", "NODE_FAIL", "TIMEOUT", "FAILED")
        if (end := end_of(JobState(state))) is not None and end.free
    }
    assert free == {"PREEMPTED"}


@pytest.mark.parametrize(
    "state",
    [
        JobState("RUNNING"),
        JobState("COMPLETING"),
        JobState("SUSPENDED"),
        JobState("CONFIGURING"),
        JobState("PENDING", "Resources"),
        JobState("PENDING", "Priority"),
        JobState("PENDING", "JobArrayTaskLimit"),
        JobState("PENDING", "BeginTime"),
        JobState("PENDING", "QOSMaxJobsPerUserLimit"),
        JobState(),
    ],
)
def test_job_that_waits_or_runs_has_no_end(state: JobState) -> None:
    assert end_of(state) is None


@pytest.mark.parametrize("reason", ["PartitionTimeLimit", "BadConstraints"])
def test_job_that_can_never_start_has_an_end(reason: str) -> None:
    end = end_of(JobState("PENDING", reason))
    assert end is not None
    assert end.status == "failed"
    assert reason in end.reason
    assert end.setting == "slurm"


@pytest.mark.parametrize("code", ["66:0", "0:53"])
def test_node_without_the_folder_is_named(code: str) -> None:
    end = end_of_failed(code, "n1", Path("/home/me/results/slurm/jobs"))
    assert end is not None
    assert "node n1 does not see the folder /home/me/results/slurm/jobs" in end.reason
    assert (end.setting, end.transient) == ("results", False)


def test_node_without_the_environment_is_named() -> None:
    end = end_of_failed("67:0", "n1", Path("/home/me"))
    assert end is not None
    assert "node n1 has no " in end.reason
    assert end_of_failed("1:0", "n1", Path("/home/me")) is None


@pytest.mark.parametrize("is_stored", [True, False])
def test_earlier_job_that_ends_while_its_record_is_reused_leaves_no_file(
    tmp_path: Path, is_stored: bool
) -> None:
    """Its record is in the store a moment before its result is in the folder."""
    folder = JobFolder(tmp_path / JOBS)
    folder.prepare()
    folder.assign("run", "7_0")
    session = SlurmExecutor((DeviceSet((), 1),), tmp_path)
    if is_stored:
        result = ("success", Ended("run", Done(make_record())))
        folder.of("7_0").result.write_bytes(pickle.dumps(result))
    session.close()
    assert folder.assigned() == ({} if is_stored else {"run": "7_0"})
