"""The standby worker: a prefetched run is trained there, and a wrong guess costs one process.

On a GPU the standby worker loads the run meanwhile. On a CPU it waits.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from nvml_builders import uuid_of

from builders import runs
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.earlier import EarlierRuns
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.jobs import job_name
from peft_methods.runs.executors.local import LocalExecutor
from peft_methods.runs.executors.process import Worker
from peft_methods.runs.experiment import Experiment
from peft_methods.runs.experiment_options import ExperimentOptions
from peft_methods.runs.plan import run_groups
from peft_methods.runs.record import Record
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store


@pytest.fixture
def scheduler(tmp_path: Path) -> Any:
    store = Store(tmp_path / "results")
    store.prepare()
    one = (DeviceSet((uuid_of("a"),), 1),)  # other tests use a fork server for it too
    made = new_scheduler(store, "cpu", workers=1, retries=0, devices=one)
    yield made
    made.close()


@pytest.fixture
def wanted(tiny_recipe: Path) -> list[RunSpec]:
    return runs(tiny_recipe, "head_only", "budget.seeds=2", "budget.epochs=1")


def prefetched(scheduler: Scheduler, run: RunSpec) -> Worker:
    scheduler.executor.prefetch([scheduler._job(run)])
    return standby_process(scheduler)


def standby_process(scheduler: Scheduler) -> Worker:
    worker = scheduler.executor._standbys[0]._worker
    assert worker is not None
    while worker.process is None:
        time.sleep(0.01)
    return worker


def trained(scheduler: Scheduler, wanted: list[RunSpec]) -> tuple[dict[int, int | None], list[Any]]:
    """Train all runs; return each seed's process, and the records in the order they ended."""
    processes: dict[int, int | None] = {}
    scheduler.watch(
        lambda event: processes.update(
            [(event.run.seed, w.process) for w in scheduler._running] if event.news else ()
        )
    )
    scheduler.submit(wanted)
    records = sorted(scheduler.wait(wanted), key=lambda record: record.finished)
    assert {(record.status, record.attempts) for record in records} == {("ok", ())}
    assert len(set(processes.values())) == len(records) == len(wanted)
    return processes, records


@pytest.mark.parametrize("guess", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_prefetched_run_is_trained_first_by_the_standby_worker(
    scheduler: Scheduler, wanted: list[RunSpec], guess: int
) -> None:
    worker = prefetched(scheduler, wanted[guess])
    processes, records = trained(scheduler, wanted)
    assert worker.process == processes[wanted[guess].seed]
    assert records[0].seed == wanted[guess].seed


@pytest.mark.slow
def test_standby_worker_ends_when_its_run_is_not_submitted(
    scheduler: Scheduler, wanted: list[RunSpec], tiny_recipe: Path
) -> None:
    (foreign,) = runs(tiny_recipe, "head_only", "budget.seeds=[7]", "budget.epochs=1")
    worker = prefetched(scheduler, foreign)
    processes, _ = trained(scheduler, wanted)
    assert worker.process not in processes.values()
    assert worker.has_ended()


def test_death_of_the_standby_worker_does_not_count_as_an_attempt(
    scheduler: Scheduler, wanted: list[RunSpec]
) -> None:
    worker = prefetched(scheduler, wanted[0])
    assert worker.process is not None
    os.kill(worker.process, signal.SIGKILL)
    assert worker.has_ended(within=30)
    processes, _ = trained(scheduler, wanted)
    assert worker.process not in processes.values()


@pytest.mark.slow
def test_first_run_is_prefetched_while_its_recipe_is_checked(
    scheduler: Scheduler, wanted: list[RunSpec]
) -> None:
    recipe = wanted[0].recipe
    scheduler.prepare(recipe, [wanted[0].method], wanted[:1])
    worker = standby_process(scheduler)
    assert scheduler.executor.prefetched() == {job_name(wanted[0])}
    scheduler.prepare(recipe, [wanted[0].method])
    assert standby_process(scheduler) is worker, (
        "the check of another recipe needs a separate process"
    )
    processes, _ = trained(scheduler, wanted)
    assert processes[wanted[0].seed] == worker.process


@pytest.mark.slow
def test_prefetched_run_keeps_an_earlier_log_until_its_turn(
    scheduler: Scheduler, wanted: list[RunSpec]
) -> None:
    log = scheduler.requests.log(wanted[0].label)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("why it failed yesterday", encoding="utf-8")
    prefetched(scheduler, wanted[0])
    early_log = scheduler.requests.work(wanted[0]) / "prefetch.log"
    while not early_log.exists():
        time.sleep(0.01)
    assert log.read_text(encoding="utf-8") == "why it failed yesterday"
    trained(scheduler, wanted)
    assert "train_runtime" in log.read_text(encoding="utf-8")
    assert "yesterday" not in log.read_text(encoding="utf-8")


def test_standby_worker_prepares_a_run_without_prerequisites(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """A run with prerequisites cannot be prefetched, even if those have records.

    Before the check, it is not known whether those records can be reused.
    """
    recipe = load_recipe(str(tiny_recipe), ["budget.seeds=2"])
    tasks = sorted(
        run_groups([recipe], ["adapter_fusion", "lora"], "cpu"), key=lambda task: task.method.name
    )
    fusion, lora = (task.runs for task in tasks)
    sources = [stage for run in fusion for stage in run.prerequisites]
    for fresh, known, guess in (
        (False, [], [fusion[0].prerequisites[0]]),
        (False, sources, [lora[0]]),
        (False, [*sources, lora[0]], [lora[1]]),
        (False, [*sources, *lora], []),
        (True, sources, [fusion[0].prerequisites[0]]),
    ):
        earlier = EarlierRuns(Store(tmp_path), None, fresh=fresh)
        records = [Record(run, "ok", run.key) for run in known]
        assert earlier.probably_first([*fusion, *lora], records, 1) == guess
    earlier = EarlierRuns(Store(tmp_path), None, fresh=False)
    records = [Record(run, "ok", run.key) for run in sources]
    assert earlier.probably_first([*fusion, *lora], records, 9) == list(lora)


@pytest.mark.slow
def test_fusion_run_reuses_its_prerequisites_from_an_earlier_session(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalExecutor, "prefetch_limit", 1)  # as with a GPU
    few = ["budget.epochs=1", "data.train=16", "methods.adapter_fusion.source_train=16"]
    for seeds in (1, 2):
        recipe = load_recipe(str(tiny_recipe), [*few, f"budget.seeds={seeds}"])
        experiment = Experiment(
            run_groups([recipe], ["adapter_fusion"], "cpu"),
            ExperimentOptions(results=tmp_path / "results", workers=1),
        )
        try:
            experiment.start()
            records = experiment.wait(experiment.tasks[0])
        finally:
            experiment.close()
        assert [(record.status, record.reused) for record in records] == [
            ("ok", True),
            ("ok", False),
        ][-len(records) :]
        assert len(records) == seeds
