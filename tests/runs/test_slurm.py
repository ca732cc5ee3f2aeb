"""The Slurm executor against a real Slurm of one node: what happens to jobs happens for real."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from misbehaving_methods import Misbehaving

from builders import runs, small_runs
from peft_methods.runs.executors.base import Ended, Lost, Progress, RunEvent
from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.registry import SLURM
from peft_methods.runs.executors.slurm.executor import SlurmExecutor
from peft_methods.runs.executors.slurm.files import TOKEN
from peft_methods.runs.executors.slurm.handle import SlurmHandle
from peft_methods.runs.executors.slurm.node import REQUEUED
from peft_methods.runs.executors.slurm.request import SlurmRequest
from peft_methods.runs.record import Record
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store
from slurm_cluster import Cluster, until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
REQUEST = SlurmRequest(minutes=30, cpus=1)
LONG = "budget.epochs=60"  # some seconds, a checkpoint after each


class Place:
    """A store, and sessions that use it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "results")
        self.store.prepare()
        self.sessions: list[Scheduler] = []

    def session(self, request: SlurmRequest = REQUEST, retries: int = 0) -> Scheduler:
        made = new_scheduler(
            self.store, "cpu", workers=1, retries=retries, executor=SLURM, request=request,
            devices=request.slots(),
        )  # fmt: skip
        self.sessions.append(made)
        return made

    def checkpoints(self, run: RunSpec) -> list[Path]:
        return list(self.store.checkpoints_of(run.key).glob("epoch-*"))


@pytest.fixture
def place(tmp_path: Path, slurm: Cluster) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for session in made.sessions:
        session.close()


@pytest.fixture
def run(tiny_recipe: Path) -> RunSpec:
    return small_runs(tiny_recipe, "head_only")[0]


@pytest.fixture
def long_run(tiny_recipe: Path) -> RunSpec:
    return small_runs(tiny_recipe, "head_only", LONG)[0]


def started(session: Scheduler, run: RunSpec, needs: Resources | None = None) -> SlurmHandle:
    """Submit one run; return its handle in the executor."""
    job = session.requests.run_job(run, {})
    handle = session.executor.start(job if needs is None else replace(job, needs=needs))
    assert isinstance(handle, SlurmHandle)
    assert isinstance(session.executor, SlurmExecutor)
    session.executor.submit()
    return handle


def job_of(handle: SlurmHandle) -> str:
    assert handle.job_id is not None
    return handle.job_id


def ending(session: Scheduler, handle: SlurmHandle, seconds: float = 300) -> RunEvent:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for event in session.executor.poll(1):
            if event.handle is handle and not isinstance(event, Progress):
                return event
    raise AssertionError("the job did not end")


def record_of(event: RunEvent) -> Record:
    assert isinstance(event, Ended), getattr(event, "reason", event)
    assert isinstance(event.done.result, Record)
    return event.done.result


def resumed(record: Record) -> bool:
    return bool(record.environment["resumed_after_epochs"])


# Sessions


def test_runs_are_one_array_and_their_records_lie_in_the_shared_store(
    place: Place, slurm: Cluster, tiny_recipe: Path
) -> None:
    wanted = [one for method in ("full", "lora") for one in small_runs(tiny_recipe, method)]
    session = place.session(replace(REQUEST, parallel=2))
    session.submit(wanted)
    records = session.wait(wanted)
    assert [record.status for record in records] == ["ok", "ok"]
    stored, _ = place.store.records()
    assert sorted(one.method_name for one in stored) == ["full", "lora"]
    arrays = {job.partition("_")[0] for job in slurm.jobs() if "_" in job}
    assert "ArrayTaskThrottle=2" in slurm.show(f"{max(arrays, key=int)}_1")
    session.close()
    assert not (place.store.folder / SLURM).exists()  # nothing is left behind
    assert not list(place.store.folder.glob("checkpoints/*"))


def test_job_asks_for_gpus_of_its_type_and_for_cores(
    place: Place, slurm: Cluster, run: RunSpec
) -> None:
    request = replace(REQUEST, gpu="fake", extra=(("comment", "ours"), ("exclusive", "true")))
    handle = started(place.session(request), run, Resources(2, 3))
    shown = slurm.show(job_of(handle))
    assert "TresPerNode=gres:gpu:fake:2" in shown
    assert "CPUs/Task=3" in shown
    assert "TimeLimit=00:30:00" in shown
    assert "Comment=ours" in shown
    assert "OverSubscribe=NO" in shown


# Runs that are interrupted and resume


def test_requeued_run_resumes_from_its_checkpoint(
    place: Place, slurm: Cluster, long_run: RunSpec
) -> None:
    session = place.session()
    handle = started(session, long_run)
    until(lambda: place.checkpoints(long_run))
    slurm.command("scontrol", "requeue", job_of(handle))
    slurm.start_now(job_of(handle))
    record = record_of(ending(session, handle))
    assert record.status == "ok"
    assert resumed(record)
    assert record.attempts == (REQUEUED,)


def test_run_that_another_job_preempts_resumes_after_it(
    place: Place, slurm: Cluster, long_run: RunSpec
) -> None:
    session = place.session(replace(REQUEST, cpus=8))
    handle = started(session, long_run)
    until(lambda: place.checkpoints(long_run))
    slurm.command("sbatch", "--partition=urgent", "--cpus-per-task=8", "--output=/dev/null",
                  "--wrap=sleep 3")  # fmt: skip
    until(lambda: slurm.jobs()[job_of(handle)] == "PENDING")
    slurm.start_now(job_of(handle))
    record = record_of(ending(session, handle))
    assert (record.status, resumed(record)) == ("ok", True)


def test_run_whose_node_fails_resumes_when_there_is_one_again(
    place: Place, slurm: Cluster, tiny_recipe: Path
) -> None:
    """Where the node cannot start it again at once, Slurm holds the job, and a new one follows."""
    # A process has two more seconds (KillWait) after its node fails. The run must need more.
    (long_run,) = small_runs(tiny_recipe, "head_only", "budget.epochs=200")
    node = slurm.command("sinfo", "-h", "-o", "%n").strip()
    session = place.session(retries=1)
    session.submit([long_run])
    session._start_ready()
    session.executor.submit()
    until(lambda: place.checkpoints(long_run))
    (job,) = slurm.live()
    slurm.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    until(lambda: slurm.jobs()[job] == "PENDING" and not slurm.steps())
    slurm.setup("start")  # it brings the node back, as an administrator would
    slurm.start_now(job)
    while long_run.key not in session._records:
        session._start_ready()
        session._listen()
        if "drain" in slurm.command("sinfo", "-h", "-o", "%T"):
            slurm.setup("start")
    record = session._records[long_run.key]
    assert (record.status, resumed(record)) == ("ok", True)


def test_run_longer_than_the_time_limit_is_finished_by_a_further_job(
    place: Place, slurm: Cluster, tiny_recipe: Path
) -> None:
    (endless,) = small_runs(tiny_recipe, "head_only", "budget.epochs=10000")
    session = place.session(replace(REQUEST, minutes=4))
    handle = started(session, endless)
    until(lambda: slurm.jobs()[job_of(handle)] == "PENDING" and place.checkpoints(endless), 400)
    before = {path.name for path in place.checkpoints(endless)}
    slurm.start_now(job_of(handle))
    until(lambda: not before & {path.name for path in place.checkpoints(endless)})
    assert "Restarts=1" in slurm.show(job_of(handle))


def test_time_limit_shorter_than_an_epoch_ends_in_a_timeout(
    place: Place, slurm: Cluster, run: RunSpec
) -> None:
    hanging = replace(run, method=Misbehaving(learning_rate=5e-2, way="hang"))
    session = place.session(replace(REQUEST, minutes=2))
    lost = ending(session, started(session, hanging))
    assert isinstance(lost, Lost)
    assert (lost.status, lost.transient) == ("timeout", False)
    assert "time limit of 2 min 00 s (setting slurm time) was over before its next epoch ended" in (
        lost.reason
    )


def test_time_in_the_queue_is_not_time_of_the_run(
    place: Place, slurm: Cluster, run: RunSpec
) -> None:
    session = place.session(replace(REQUEST, extra=(("begin", "now+3600"),)))
    session._timeouts.limit, session._timeouts.interval = 2.0, 0.5
    session.submit([run])
    session._start_ready()
    for _ in range(10):
        session._listen()
    assert session._records == {}
    assert list(slurm.live())


# Runs that end without a result


def test_job_that_someone_cancels_is_not_retried(
    place: Place, slurm: Cluster, long_run: RunSpec
) -> None:
    session = place.session(retries=3)
    session.submit([long_run])
    session._start_ready()
    until(lambda: list(session.executor.poll(1)) or slurm.live())
    slurm.command("scancel", *slurm.live())
    (record,) = session.wait([long_run])
    assert (record.status, record.attempts) == ("crashed", ())
    assert re.match(r"Slurm's job \d+: it was cancelled \(scancel\)", record.message)


def test_node_without_the_shared_folder_is_named(
    place: Place, slurm: Cluster, run: RunSpec
) -> None:
    session = place.session(replace(REQUEST, extra=(("begin", "now+3"),)))
    handle = started(session, run)
    (place.store.folder / SLURM / "jobs" / TOKEN).write_text("of another folder")
    lost = ending(session, handle)
    assert isinstance(lost, Lost)
    assert (lost.status, lost.transient) == ("failed", False)
    node = slurm.command("sinfo", "-h", "-o", "%n").strip()
    assert f"node {node} does not see the folder" in lost.reason
    assert "Choose a folder for results that all nodes share" in lost.reason


def test_job_that_can_never_start_ends_its_run(place: Place, run: RunSpec) -> None:
    session = place.session(replace(REQUEST, partition="urgent", minutes=10_000))
    lost = ending(session, started(session, run))
    assert isinstance(lost, Lost)
    assert "it will never start (PartitionTimeLimit)" in lost.reason


def test_refusal_of_sbatch_is_the_reason_of_the_run(place: Place, run: RunSpec) -> None:
    session = place.session(replace(REQUEST, gpu="fake"))
    lost = ending(session, started(session, run, Resources(99, 1)))
    assert isinstance(lost, Lost)
    assert (lost.status, lost.transient) == ("failed", False)
    assert lost.reason == (
        "sbatch refused it: Batch job submission failed: "
        "Requested node configuration is not available"
    )


# Slurm that does not answer


def test_run_goes_on_while_the_controller_restarts(
    place: Place, slurm: Cluster, long_run: RunSpec
) -> None:
    session = place.session()
    handle = started(session, long_run)
    until(lambda: place.checkpoints(long_run))
    slurm.setup("controller")
    record = record_of(ending(session, handle))
    assert (record.status, record.attempts) == ("ok", ())
    assert not resumed(record)


# Detaching


def test_next_session_continues_with_the_jobs_of_one_that_detached(
    place: Place, slurm: Cluster, long_run: RunSpec
) -> None:
    """One failed meanwhile, one runs. None is submitted again."""
    failing = replace(long_run, method=Misbehaving(learning_rate=5e-2, way="raise"))
    wanted = [failing, long_run]
    first = place.session()
    first.submit(wanted)
    left = first.detach()
    assert (len(left.jobs), left.waiting) == (2, 0)
    first.close()
    until(lambda: place.checkpoints(long_run))
    submitted = set(slurm.jobs())
    second = place.session()
    second.submit(wanted)
    done = second.wait(wanted)
    assert [record.status for record in done] == ["failed", "ok"]
    assert "raised on purpose" in done[0].message
    assert set(slurm.jobs()) == submitted
    assert not resumed(done[1])
    second.close()
    assert not (place.store.folder / SLURM).exists()


def test_jobs_of_a_killed_session_are_found_again(
    place: Place, slurm: Cluster, long_run: RunSpec
) -> None:
    first = place.session()
    handle = started(first, long_run)
    first.requests.folder.remove()  # what is left of a killed session: its lock is gone
    second = place.session()
    again = started(second, long_run)
    assert again.job_id == handle.job_id
    assert record_of(ending(second, again)).status == "ok"


def test_closed_session_leaves_no_job(place: Place, slurm: Cluster, tiny_recipe: Path) -> None:
    wanted = [replace(one, seed=seed) for one in runs(tiny_recipe, "lora", LONG)[:1]
              for seed in range(10)]  # fmt: skip
    session = place.session()
    session.submit(wanted)
    session._start_ready()
    until(lambda: list(session.executor.poll(1)) or len(slurm.live()) == len(wanted))
    session.close()
    until(lambda: not slurm.live(), 15)
