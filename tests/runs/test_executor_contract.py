"""The contract of executors, held by every registered one, with real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from misbehaving_methods import Misbehaving
from wheel_builders import install, make_wheel, unpack

from builders import small_runs
from peft_methods.runs.executors.base import Ended, Executor, Handle, Lost, Progress, RunEvent
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.jobs import PrepareJob, RunJob
from peft_methods.runs.executors.registry import (
    BUILT_IN,
    GROUP,
    LOCAL,
    RAY,
    SLURM,
    executor_names,
    executor_of,
)
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.experiment import Experiment
from peft_methods.runs.experiment_options import ExperimentOptions
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.record import Record
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store
from peft_methods.utils.errors import OptionError

SLOTS = (DeviceSet((), 1), DeviceSet((), 1))
SECONDS = 240  # for a process to start, import everything and train


class Bench:
    """An executor with two slots, and the jobs that it is given."""

    def __init__(self, name: str, recipe: Path, folder: Path) -> None:
        store = Store(folder / "results")
        store.prepare()
        self.requests = RunRequests(store, RunFolder(store), "cpu", SLOTS[0].resources)
        self.executor: Executor = executor_of(name)(SLOTS, self.requests.folder.path)
        (self._run,) = small_runs(recipe, "head_only")

    def run(self, way: str = "", seed: int = 0) -> RunSpec:
        method = Misbehaving(learning_rate=5e-2, way=way)
        return replace(self._run, method=method, seed=seed)

    def job(self, way: str = "", seed: int = 0) -> RunJob:
        return self.requests.run_job(self.run(way, seed), {})

    def events(self, handle: Handle) -> list[RunEvent]:
        """Wait until a job has ended; return its events."""
        found: list[RunEvent] = []
        end = time.monotonic() + SECONDS
        while not found or isinstance(found[-1], Progress):
            assert time.monotonic() < end, "the job did not end"
            found += [one for one in self.executor.poll(1) if one.handle == handle]
        return found

    def until_applied(self, handle: Handle) -> str:
        """Wait until a hanging job has applied its method; return its stack."""
        end = time.monotonic() + SECONDS
        while "misbehaving_methods.py" not in (stacks := self.executor.stacks(handle)):
            assert time.monotonic() < end, f"the job did not begin: {stacks}"
            list(self.executor.poll(0.1))
        return stacks


def marked(name: str) -> object:
    marks = {RAY: pytest.mark.ray, SLURM: pytest.mark.slurm}
    return pytest.param(name, marks=marks[name]) if name in marks else name


@pytest.fixture(params=map(marked, executor_names()))
def bench(request: pytest.FixtureRequest, tiny_recipe: Path, tmp_path: Path) -> Iterator[Bench]:
    cluster = {RAY: "ray_nodes", SLURM: "slurm"}.get(request.param)
    if cluster is not None:
        request.getfixturevalue(cluster)
    made = Bench(request.param, tiny_recipe, tmp_path)
    yield made
    made.executor.close()
    made.requests.remove_scratch()


def record_of(event: RunEvent) -> Record:
    assert isinstance(event, Ended)
    assert isinstance(event.done.result, Record)
    return event.done.result


def test_job_that_ends_reports_progress_and_its_record(bench: Bench) -> None:
    handle = bench.executor.start(bench.job())
    *progress, last = bench.events(handle)
    record = record_of(last)
    assert (record.status, record.message) == ("ok", "")
    assert progress
    assert all(isinstance(one, Progress) and one.news for one in progress)
    assert (bench.requests.store.folder / f"{record.fingerprint}.json").is_file()
    bench.executor.kill(handle)


def test_job_that_raises_ends_with_a_failed_record(bench: Bench) -> None:
    handle = bench.executor.start(bench.job("raise"))
    record = record_of(bench.events(handle)[-1])
    assert record.status == "failed"
    assert "raised on purpose" in record.message
    bench.executor.kill(handle)


def test_job_whose_process_is_killed_is_lost_and_may_be_retried(bench: Bench) -> None:
    handle = bench.executor.start(bench.job("die"))
    lost = bench.events(handle)[-1]
    assert isinstance(lost, Lost)
    assert lost.status in {"crashed", "oom"}  # a kernel that kills for memory sends SIGKILL too
    assert lost.transient
    assert "killed" in lost.reason
    bench.executor.kill(handle)
    again = bench.executor.start(bench.job())
    assert record_of(bench.events(again)[-1]).status == "ok"
    bench.executor.kill(again)


def test_job_that_hangs_has_a_stack_and_sends_nothing_once_it_is_killed(bench: Bench) -> None:
    handle = bench.executor.start(bench.job("hang"))
    assert "in apply" in bench.until_applied(handle)
    bench.executor.kill(handle)
    bench.executor.kill(handle)  # twice is allowed
    assert [one for one in bench.executor.poll(0.2) if one.handle == handle] == []


def test_jobs_fill_the_capacity_at_the_same_time(bench: Bench) -> None:
    """Both hang at once, so neither waited for the other; each has a separate handle."""
    assert bench.executor.capacity.threads >= sum(slot.threads for slot in SLOTS)
    needs = bench.requests.needs
    handles = []
    for seed in range(len(SLOTS)):
        assert bench.executor.has_room(needs)
        handles.append(bench.executor.start(bench.job("hang", seed)))
    assert not bench.executor.has_room(needs)
    assert len(set(handles)) == len(SLOTS)
    for handle in handles:
        bench.until_applied(handle)
    bench.executor.kill(handles[0])
    assert bench.executor.has_room(needs)
    free = bench.executor.start(bench.job(seed=5))
    assert record_of(bench.events(free)[-1]).seed == 5
    assert bench.executor.has_started(handles[1])
    assert "in apply" in bench.executor.stacks(handles[1])


def test_poll_returns_after_its_timeout(bench: Bench) -> None:
    handle = bench.executor.start(bench.job("hang"))
    bench.until_applied(handle)
    while list(bench.executor.poll(0.2)):
        pass  # what the job sent before it began to hang
    before = time.monotonic()
    assert list(bench.executor.poll(0.2)) == []
    assert 0.1 < time.monotonic() - before < 5
    assert list(bench.executor.poll(0)) == []


def test_check_of_a_recipe_ends_with_what_is_known_about_it(bench: Bench) -> None:
    run = bench.run()
    job = bench.requests.prepare_job(run.recipe, [run.method])
    assert isinstance(job, PrepareJob)
    last = bench.events(bench.executor.start(job))[-1]
    assert isinstance(last, Ended)
    assert isinstance(last.done.result, PreparedRecipe)


def test_prefetched_job_is_started_or_dropped(bench: Bench) -> None:
    """An executor that does not prefetch ignores the job, and its run is trained all the same."""
    job = bench.job()
    bench.executor.prefetch([])
    assert not bench.executor.prefetched()
    bench.executor.prefetch([job])
    names = {job.name} if bench.executor.prefetch_limit else set()
    assert bench.executor.prefetched() == bench.executor.next_prefetched() == names
    handle = bench.executor.start(job)
    assert not bench.executor.prefetched()
    assert record_of(bench.events(handle)[-1]).status == "ok"
    bench.executor.prefetch([job])
    bench.executor.drop_prefetched()
    bench.executor.drop_prefetched()
    assert not bench.executor.prefetched()


def descendants() -> set[int]:
    """Return the processes of this one, and of Slurm's jobs."""
    found = set()
    for parent in (psutil.Process(), *psutil.process_iter()):
        with contextlib.suppress(psutil.NoSuchProcess):
            if parent.pid == os.getpid() or parent.name() == "slurmstepd":
                found |= {
                    child.pid
                    for child in parent.children(recursive=True)
                    if child.status() != psutil.STATUS_ZOMBIE
                }
    return found


def test_close_leaves_no_process_of_any_job(bench: Bench) -> None:
    """One job trains, one hangs, one ended, and one process waits for its turn."""
    ended = bench.executor.start(bench.job(seed=9))
    bench.events(ended)
    bench.executor.kill(ended)
    bench.executor.drop_prefetched()
    before = descendants()  # such as a server that the next executor will use
    handles = [bench.executor.start(bench.job("hang", seed)) for seed in range(2)]
    bench.executor.prefetch([bench.job(seed=2)])
    for handle in handles:
        bench.until_applied(handle)
    assert len(descendants()) >= len(before) + 2
    bench.executor.close()
    end = time.monotonic() + 10
    while descendants() - before:
        assert time.monotonic() < end, psutil.Process().children(recursive=True)
        time.sleep(0.05)
    bench.executor.close()  # twice is allowed


# The registry


@pytest.mark.parametrize("name", BUILT_IN)
def test_executor_has_every_method_of_the_contract(name: str) -> None:
    methods = {name for name, one in vars(Executor).items() if callable(one) and name[0] != "_"}
    assert "leave_out" in methods
    assert methods - set(dir(executor_of(name))) == set()


def test_unknown_executor_is_refused_with_the_known_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    with pytest.raises(OptionError, match=r"'locale'.*local") as caught:
        new_scheduler(store, "cpu", workers=1, executor="locale")
    assert caught.value.setting == "executor"
    with pytest.raises(OptionError):
        Experiment((), ExperimentOptions(results=tmp_path, executor="locale"))


PLUGIN = """
from peft_methods.runs.executors.local import LocalExecutor
class Mine(LocalExecutor):
    def start(self, *arguments):
        print("mine starts a run")
        return super().start(*arguments)
"""
POINTS = "mine = plugged:Mine\nbroken = absent_module:Any\nnumber = plugged:__name__\n"
COMPARE = """
import sys
sys.path.insert(0, sys.argv[1])
from peft_methods import compare
done = compare(sys.argv[2], methods=["lora"], seeds=1, results=sys.argv[3], executor="mine")
print(done.records[0].status)
"""
FIND = """
import sys
sys.path.insert(0, sys.argv[1])
from peft_methods.runs.executors import registry
from peft_methods.utils.errors import OptionError
print(registry.executor_names())
print("torch" in sys.modules, "plugged" in sys.modules)
for name in ("mine", "broken", "number", "local"):
    try:
        print(registry.executor_of(name).__name__)
    except OptionError as error:
        print(error)
"""


def test_executors_of_installed_packages_are_found_and_imported_when_chosen(tmp_path: Path) -> None:
    """A broken one is named in one line, and hides no other."""
    points = POINTS + "local = plugged:Mine\n"
    unpack(make_wheel(tmp_path, "plugged", PLUGIN, points, GROUP), tmp_path / "site")
    command = [sys.executable, "-c", FIND, str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names, imported, mine, broken, number, local = done.stdout.splitlines()
    assert names == f"('{LOCAL}', '{RAY}', '{SLURM}', 'broken', 'mine', 'number')"
    assert imported == "False False"
    assert mine == "Mine"
    for line, name in ((broken, "broken"), (number, "number")):
        assert line.startswith(f"the package 'plugged' brings an executor '{name}' (")
        assert line.endswith("Update or uninstall that package.")
    assert "absent_module" in broken
    assert local == "LocalExecutor"  # no package can replace the one of this name


@pytest.mark.slow
def test_compare_runs_in_the_executor_of_an_installed_package(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    install(make_wheel(tmp_path, "plugged", PLUGIN, POINTS, GROUP), site)
    arguments = [str(site), str(tiny_recipe), str(tmp_path / "results")]
    command = [sys.executable, "-c", COMPARE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    starts, *_, status = done.stdout.splitlines()
    assert (starts, status) == ("mine starts a run", "ok")


def test_unknown_executor_is_refused_at_the_start_of_the_session(pytester: pytest.Pytester) -> None:
    found = pytester.runpytest_inprocess(
        "-p", "peft_methods.plugin", "-p", "no:cacheprovider", "--peft-executor=locale"
    )
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    found.stderr.fnmatch_lines(["ERROR: *'locale'*local*--peft-executor*"])
