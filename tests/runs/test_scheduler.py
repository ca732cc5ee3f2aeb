"""Runs in separate processes: if one process dies, only its run is lost."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from builders import TASK, make_model, runs
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.events import Event
from peft_methods.runs.executors.failures import failure_of
from peft_methods.runs.executors.jobs import Failure
from peft_methods.runs.export import load_trained
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import run_specs
from peft_methods.runs.store import Store
from peft_methods.tasks.collate import Collator
from peft_methods.training.evaluation import predict
from peft_methods.utils.errors import DataError
from peft_methods.utils.units import format_duration


@pytest.fixture
def scheduler(tmp_path: Path) -> Any:
    store = Store(tmp_path / "results")
    store.prepare()
    made = new_scheduler(store, "cpu", workers=2, save_models=tmp_path / "models")
    yield made
    made.close()


@pytest.mark.slow
def test_executor_trains_every_method_and_stores_complete_records(
    tiny_recipe: Path, scheduler: Scheduler, tmp_path: Path
) -> None:
    recipe = load_recipe(str(tiny_recipe), ["budget.seeds=1"])
    wanted = [
        run for method in chosen_methods(recipe, None) for run in run_specs(recipe, method, "cpu")
    ]
    scheduler.submit(wanted)
    records = scheduler.wait(wanted)
    assert [(r.method_name, r.status, r.message) for r in records] == [
        (c.method.name, "ok", "") for c in wanted
    ]
    for record in records:
        _is_complete(record, scheduler.requests.store)
    fusion = records[-1]
    assert (fusion.metrics["source_seconds"] or 0) > 0
    sources = [record for record in scheduler.requests.store.records()[0] if record.role != "main"]
    assert len(sources) == 2
    assert all(source.metrics["accuracy"] is None for source in sources)
    _models_load_and_agree(recipe, scheduler, records, tmp_path / "models")


def test_head_with_pooler_is_saved_completely(
    tiny_recipe: Path, scheduler: Scheduler, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "idle", trained_pooler=False)
    recipe = load_recipe(str(tiny_recipe), ["budget.seeds=1", "budget.epochs=1"], model=str(folder))
    wanted = [
        run
        for method in chosen_methods(recipe, ["full", "lora", "adapter"])
        for run in run_specs(recipe, method, "cpu")
    ]
    scheduler.submit(wanted)
    records = scheduler.wait(wanted)
    for record in records:
        _is_complete(record, scheduler.requests.store)
        assert record.metrics["head_parameters"] == 32 * 32 + 32 + 2 * 32 + 2
    _models_load_and_agree(recipe, scheduler, records, tmp_path / "models")


def _is_complete(record: Any, store: Store) -> None:
    metrics = record.metrics
    assert metrics["accuracy"] == pytest.approx(
        sum(record.quality["confusion"][i][i] for i in range(2)) / 50
    )
    assert (
        metrics["trainable_parameters"] == metrics["method_parameters"] + metrics["head_parameters"]
    )
    assert metrics["method_parameters"] == record.evidence.expected_trainable
    assert not record.evidence.frozen_changed
    assert not record.evidence.unmoved
    assert record.evidence.moved_checked > 0
    assert (record.evidence.frozen_checked == 0) == (record.method_name == "full")
    for name in (
        "train_seconds",
        "samples_per_second",
        "tokens_per_second",
        "checkpoint_bytes",
        "load_seconds",
        "evaluate_seconds",
    ):
        assert metrics[name] > 0
    assert metrics["train_seconds"] == pytest.approx(
        sum(epoch["train_seconds"] for epoch in record.epochs)
    )
    assert (
        metrics["peak_memory_bytes"]
        >= max(epoch["peak_memory_bytes"] for epoch in record.epochs)
        >= 0
    )
    assert record.environment["packages"]["torch"]
    predictions = store.read_predictions(record)
    assert predictions is not None
    assert predictions.logits.shape == (50, 2)


def _models_load_and_agree(recipe: Any, scheduler: Scheduler, records: Any, folder: Path) -> None:
    """Load each saved model as users would; check that it predicts what the record holds."""
    from peft_methods.data import splits, tokenize
    from peft_methods.models import loading

    texts = splits.load(recipe.data, TASK)
    for record in records:
        saved = folder / f"tiny-{record.method_name}-seed0"
        model = load_trained(saved)
        assert model.config.id2label == {0: "0", 1: "1"}
        tokenizer = loading.load(recipe.model, TASK.head, texts.facts.label_names).tokenizer
        tokens = tokenize.tokenize(texts, tokenizer, recipe.data, TASK)
        got = predict(TASK, model, tokens.test, Collator(tokenizer), 50)
        kept = scheduler.requests.store.read_predictions(record)
        assert kept is not None
        assert (abs(got.logits - kept.logits) < 1e-4).all(), record.method_name


def test_executor_retries_killed_runs_and_records_repeated_crashes(
    tiny_recipe: Path, scheduler: Scheduler
) -> None:
    wanted = runs(tiny_recipe, "lora", "budget.seeds=3", "budget.epochs=10")
    signals = {0: [signal.SIGKILL, signal.SIGSEGV], 1: [signal.SIGABRT], 2: []}
    killed: set[int | None] = set()

    def kill(event: Event) -> None:
        worker = next(
            (worker for worker, run in scheduler._running.items() if run == event.run), None
        )
        if (
            event.news
            and worker
            and worker.process
            and worker.process not in killed
            and signals[event.run.seed]
        ):
            killed.add(worker.process)
            os.kill(worker.process, signals[event.run.seed].pop(0))

    scheduler.watch(kill)
    scheduler.submit(wanted)
    records = scheduler.wait(wanted)
    assert [record.status for record in records] == ["crashed", "ok", "ok"]
    assert "killed by SIGSEGV in " in records[0].message
    assert "peft_methods/runs/executors/worker.py" in records[0].stack
    assert len(records[0].attempts) == len(records[1].attempts) == 1
    assert "crashed: its process was killed by SIGKILL (out of memory?)" in records[0].attempts[0]
    assert "killed by SIGABRT" in records[1].attempts[0]
    assert records[2].attempts == ()
    stored = scheduler.requests.store.records()[0]
    assert sorted((record.seed, record.status, record.attempts) for record in stored) == [
        (record.seed, record.status, record.attempts) for record in records
    ]


def test_failed_run_has_a_record_with_the_error_message(
    tiny_recipe: Path, scheduler: Scheduler
) -> None:
    bad = runs(tiny_recipe, "full", "budget.seeds=1", 'data.source="/nowhere/at/all"')
    scheduler.submit(bad)
    record = scheduler.wait(bad)[0]
    assert record.status == "failed"
    assert "/nowhere/at/all" in record.message
    assert "\n" not in record.message


def test_failed_prerequisite_fails_the_fusion_run_with_the_reason(
    tiny_recipe: Path, scheduler: Scheduler
) -> None:
    sources = 'methods.adapter_fusion.sources=["/gone/a", "/gone/b"]'
    wanted = runs(tiny_recipe, "adapter_fusion", "budget.seeds=1", sources)
    scheduler.submit(wanted)
    record = scheduler.wait(wanted)[0]
    assert record.status == "failed"
    assert re.match(
        r"its prerequisite run tiny\.source\d-(a|b) failed: there is no folder /gone/\1\.",
        record.message,
    )


def test_record_status_is_oom_for_out_of_memory_errors_only() -> None:
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    ):
        assert failure_of(error).status == "oom"
    assert failure_of(RuntimeError("shape")).status == "failed"


def test_prepare_raises_data_error_before_training(tiny_recipe: Path, scheduler: Scheduler) -> None:
    recipe = load_recipe(str(tiny_recipe), ["data.test=5000"])
    with pytest.raises(DataError, match="5000 test rows requested"):
        scheduler.prepare(recipe, chosen_methods(recipe, None))


def test_prepare_keeps_the_setting_of_an_error_in_the_worker(
    tiny_recipe: Path, scheduler: Scheduler
) -> None:
    """A `Failure` carries the setting across the process boundary."""
    failure = failure_of(DataError("too long.", setting="data.max_length"))
    assert failure == Failure("too long.", by_user=True, setting="data.max_length")
    assert failure_of(ValueError("shape")).setting == ""
    recipe = load_recipe(str(tiny_recipe), ["data.max_length=5000"])
    with pytest.raises(DataError, match="max_length") as caught:
        scheduler.prepare(recipe, chosen_methods(recipe, None))
    assert caught.value.setting == "data.max_length"


def test_run_uses_the_current_directory_of_the_session(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results folder is usually a relative path, and notebooks change their directory."""
    before = new_scheduler(Store(tmp_path), "cpu", workers=2)
    before.executor._server.launch()
    before.close()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    store = Store(Path("results"))
    store.prepare()
    scheduler = new_scheduler(store, "cpu", workers=2)
    wanted = runs(tiny_recipe, "head_only", "budget.seeds=1", "budget.epochs=1")
    scheduler.submit(wanted)
    records = scheduler.wait(wanted)
    scheduler.close()
    assert [record.status for record in records] == ["ok"]
    assert scheduler.warnings == []
    assert list((tmp_path / "other" / "results").glob("*.json"))


def test_close_leaves_no_process_and_no_scratch_files(tiny_recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "r")
    store.prepare()
    scheduler = new_scheduler(store, "cpu", workers=2)
    wanted = runs(tiny_recipe, "lora", "budget.epochs=500")
    scheduler.submit(wanted)

    class StopWaiting(Exception):
        pass

    def stop(event: Event) -> None:
        if event.news:
            raise StopWaiting

    scheduler.watch(stop)
    with pytest.raises(StopWaiting):
        scheduler.wait(wanted)
    pids = [worker.process for worker in scheduler._running]
    scheduler.close()
    assert pids
    assert not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids
    )
    assert [path.name for path in store.folder.iterdir()] == ["logs"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_are_formatted_in_words(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words
