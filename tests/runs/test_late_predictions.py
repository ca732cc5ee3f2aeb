"""Estimates of ended runs: after the last run, blind to it, beside what was measured."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import BENCHMARK, runs
from peft_methods.analysis.checks import run_checks
from peft_methods.analysis.predicted import errors_of
from peft_methods.analysis.validation import validate
from peft_methods.api import compare
from peft_methods.cli.interrupts import Interrupts
from peft_methods.cli.options import read_options
from peft_methods.estimation.connected import default_estimator
from peft_methods.report.text.estimate_errors import validation_text
from peft_methods.runs import late_predictions
from peft_methods.runs.events import Event
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.process import Worker, fork_server
from peft_methods.runs.late_predictions import LatePredictions
from peft_methods.runs.late_questions import LateQuestion
from peft_methods.runs.predicted import AFTER, BEFORE, SEVERAL_GPUS, Prediction
from peft_methods.runs.predicting import LatePredictor, prediction_of
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store

H200 = "NVIDIA H200"
EARLIER = Prediction(9e9, 8.9e9, 9.2e9, 10.4e9)
Recorded = Callable[..., tuple[RunSpec, Record]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    made = Store(tmp_path / "results")
    made.prepare()
    return made


@pytest.fixture
def recorded(tiny_recipe: Path, store: Store) -> Recorded:
    """A function that stores the record of a run on an H200, and returns it with its run."""

    def make(
        method: str = "lora", seed: int = 0, settings: Sequence[str] = (), **changes: Any
    ) -> tuple[RunSpec, Record]:
        first = runs(tiny_recipe, method, *settings)[0]
        run = replace(first, seed=seed, device="cuda", engine="trainer")
        own: dict[str, Any] = {
            "status": "ok",
            "metrics": {"peak_memory_bytes": 2.0**30, "train_seconds": 5.0},
            "environment": {"device_name": H200, "config_sha256": "c"},
            **changes,
        }
        record = Record(run, fingerprint=f"{method}{seed}", **own)
        store.write(record)
        return run, record

    return make


def worker(tmp_path: Path) -> Worker:
    """A real process, as executors start it."""
    return Worker(fork_server(DeviceSet()), tmp_path)


def no_worker() -> Worker:
    """Fail: a session that has nothing to estimate starts no process."""
    pytest.fail("a process was started")


def late(
    store: Store, *known: tuple[RunSpec, Record], new_worker: Callable[[], Worker] | None = None
) -> LatePredictions:
    """Late predictions of a session whose runs ended with these records."""
    made = LatePredictions(new_worker or (lambda: worker(store.folder)), store, H200)
    for run, record in known:
        made(Event(run))
        made(Event(run, record=record))
    return made


def question(run: RunSpec, *digests: str) -> LateQuestion:
    """The question about a run on an H200."""
    return LateQuestion(0, "tiny", run.recipe, run.method, run.engine, H200, digests)


def test_each_method_is_estimated_once_for_all_seeds_and_stored(
    recorded: Recorded, store: Store
) -> None:
    known = [recorded("lora", 0), recorded("lora", 1), recorded("full", 0)]
    shown: list[tuple[int, int, str]] = []
    records = [record for _, record in known]
    found = late(store, *known).add_to(records, lambda *one: shown.append(one))
    assert {one.fingerprint for one in found} == {"lora0", "lora1", "full0"}
    by_name = {one.fingerprint: one.predicted for one in found}
    assert by_name["lora0"] == by_name["lora1"] != by_name["full0"]
    assert (shown[0], shown[-1][:2]) == ((0, 2, "tiny-lora"), (1, 2))
    for one in found:
        predicted = one.predicted
        assert predicted is not None
        assert (predicted.made, predicted.reason, predicted.basis) == (AFTER, "", "datasheet")
        assert predicted.peak_memory_bytes is not None
        assert predicted.train_seconds is not None
        stored = store.find(one.fingerprint)
        assert stored is not None
        assert stored == one
        assert {error.metric for error in errors_of(stored)} == {
            "peak_memory_bytes",
            "train_seconds",
        }
        rules = [rule.evidence for rule in run_checks([stored]) if rule.rule == "V426"]
        assert any("the estimate of the peak" in rule for rule in rules)  # 1 GiB was made up


def test_it_is_the_estimate_that_is_made_before_runs(recorded: Recorded) -> None:
    run, _ = recorded("lora")
    predictor = LatePredictor()
    found = predictor.answer(question(run))
    recipe = replace(run.recipe, data=predictor.rows_of(run.recipe))
    before = prediction_of(recipe, run.method, run.engine, H200, default_estimator())
    assert found == replace(before, made=AFTER)
    assert before.made == BEFORE


def test_known_reused_and_unfinished_runs_stay_as_they_are(
    recorded: Recorded, store: Store
) -> None:
    run, plain = recorded("lora")
    on_cpu = replace(run, device="cpu")
    known = [
        (run, replace(plain, reused=True)),
        recorded("full", predicted=EARLIER),
        (replace(run, seed=1), replace(plain, spec=replace(run, seed=1), status="failed")),
        (on_cpu, replace(plain, spec=on_cpu)),
        (replace(run, role="trial"), replace(plain, spec=replace(run, role="trial"))),
    ]
    made = late(store, *known, new_worker=no_worker)
    assert made.add_to([record for _, record in known]) == []
    assert made.notes == []


def test_run_without_an_estimate_keeps_the_reason(recorded: Recorded, store: Store) -> None:
    several = recorded("full", settings=["budget.gpus=2", "budget.strategy=ddp"])
    found = late(store, several, new_worker=no_worker).add_to([several[1]])
    assert [one.predicted for one in found] == [Prediction(made=AFTER, reason=SEVERAL_GPUS)]
    run, _ = recorded("lora")
    missing = replace(run.recipe, model=replace(run.recipe.model, source="./nothing-here"))
    predicted = LatePredictor().answer(question(replace(run, recipe=missing)))
    assert "nothing-here" in predicted.reason
    assert predicted.peak_memory_bytes is None
    record = replace(recorded("lora")[1], predicted=predicted)
    assert errors_of(record) == []
    assert not [one for one in run_checks([record]) if one.rule == "V426"]
    again = Record.from_json(json.loads(json.dumps(record.to_json())))
    assert again.predicted == predicted
    assert validate(
        [replace(record, spec=replace(run, recipe=missing))], default_estimator()
    ).failed


def test_dead_process_costs_the_estimates_alone(recorded: Recorded, store: Store) -> None:
    known = recorded("lora")

    def dying() -> Worker:
        made = worker(store.folder)
        while made.process is None:
            time.sleep(0.01)
        os.kill(made.process, signal.SIGKILL)
        return made

    (found,) = late(store, known, new_worker=dying).add_to([known[1]])
    assert found.predicted is not None
    assert "SIGKILL" in found.predicted.reason
    assert store.find("lora0") == found


def test_failure_costs_the_estimates_alone(recorded: Recorded, store: Store) -> None:
    def failing() -> Worker:
        raise RuntimeError("there is no room for another process")

    made = late(store, known := recorded(), new_worker=failing)
    assert made.add_to([known[1]]) == []
    assert made.notes == [
        "the estimates of 1 method failed: RuntimeError: there is no room for another process"
    ]
    assert store.records()[0][0].predicted is None


def test_interrupt_keeps_what_was_estimated(
    recorded: Recorded, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_predictions, "own_cores", lambda: [0])  # one process
    known = [recorded("lora"), recorded("full"), recorded("ia3")]

    def interrupt(ended: int, count: int, name: str) -> None:
        if ended:
            raise KeyboardInterrupt

    made = late(store, *known)
    found = made.add_to([record for _, record in known], interrupt)
    assert found
    assert len(found) < len(known)
    left = len(known) - len(found)
    assert made.notes == [
        f"the estimates of {left} method{'s' * (left > 1)} were left out by an interrupt"
    ]
    for one in found:
        assert store.find(one.fingerprint) == one


def test_kept_prediction_is_not_made_again_while_its_inputs_are_the_same(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run, _ = recorded("lora")
    asked: list[str] = []

    def counted(*inputs: Any) -> Prediction:
        asked.append(inputs[1].name)
        return EARLIER

    monkeypatch.setattr("peft_methods.runs.predicting.prediction_of", counted)
    digests = ("config", "weights", "tokenizer")
    for _ in range(2):
        assert LatePredictor().answer(question(run, *digests)) == replace(EARLIER, made=AFTER)
    assert len(asked) == 1
    LatePredictor().answer(replace(question(run, *digests), device_name="NVIDIA H100"))
    LatePredictor().answer(question(run, "another", *digests[1:]))
    other = replace(run, method=replace(run.method, learning_rate=0.5))
    LatePredictor().answer(question(other, *digests))
    assert len(asked) == 4
    for _ in range(2):
        LatePredictor().answer(question(run))  # unknown files
    assert len(asked) == 6


@pytest.fixture
def estimated_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimate the runs of CPU sessions as if they were on a GPU."""
    monkeypatch.setattr(late_predictions, "is_estimated", lambda run: run.role == "main")


@pytest.mark.parametrize("isolation", [pytest.param("fresh", marks=pytest.mark.slow), "warm"])
@pytest.mark.usefixtures("estimated_on_cpu")
def test_session_adds_estimates_to_new_records_alone(
    isolation: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    def session(**more: Any) -> dict[tuple[str, int], Record]:
        found = compare(
            str(tiny_recipe),
            results=tmp_path / "results",
            isolation=isolation,
            workers=2,
            progress=False,
            **more,
        )
        return {(one.method_name, one.seed): one for one in found.records}

    first = session(methods=["lora"], seeds=1, no_estimates=True)
    assert [one.predicted for one in first.values()] == [None]
    second = session(methods=["lora", "head_only"], seeds=2)
    assert second["lora", 0].reused
    assert second["lora", 0].predicted is None
    made = [one.predicted for key, one in second.items() if key != ("lora", 0)]
    assert all(one is not None and one.made == AFTER and one.needed_bytes for one in made)
    stored = {(one.method_name, one.seed): one for one in Store(tmp_path / "results").records()[0]}
    assert {key: one.predicted for key, one in stored.items()} == {
        key: one.predicted for key, one in second.items()
    }
    third = session(methods=["lora", "head_only"], seeds=2)
    assert all(one.reused for one in third.values())
    assert {key: one.predicted for key, one in third.items()} == {
        key: one.predicted for key, one in second.items()
    }


def test_validation_takes_the_time_that_only_a_record_has(recorded: Recorded) -> None:
    run, record = recorded("lora")
    predicted = LatePredictor().answer(question(run))
    assert predicted.train_seconds is not None
    without = validate([record], default_estimator())
    assert {one.metric for one in without.errors} == {"peak_memory_bytes"}
    found = validate([replace(record, predicted=predicted)], default_estimator())
    assert {one.metric: one.predicted for one in found.errors} == {
        "peak_memory_bytes": without.errors[0].predicted,
        "train_seconds": predicted.train_seconds,
    }
    assert found.stored_times == 1
    assert "training times of 1 by the estimate in their record" in validation_text(found)


def test_ctrl_c_in_a_part_that_may_be_skipped_ends_that_part() -> None:
    interrupts, before = Interrupts(lambda: None), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.install()
    interrupts.exit_on_next()
    at_the_end, reached = signal.getsignal(signal.SIGINT), []
    try:
        with interrupts.skipping():
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100):
                time.sleep(0.01)
            reached.append("the end of the part")
        assert not reached
        assert signal.getsignal(signal.SIGINT) == at_the_end
    finally:
        interrupts.restore()
        signal.signal(signal.SIGINT, before)


INTERRUPTED = """
import os, signal
from peft_methods.runs import late_predictions

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
late_predictions.is_estimated = lambda run: run.role == "main"

def answers(*inputs):
    os.kill(os.getpid(), signal.SIGINT)
    yield 0, late_predictions.Prediction()  # the signal arrives first

late_predictions.LatePredictions._answers = answers
"""


@pytest.mark.slow
def test_interrupt_of_estimates_ends_nothing_else(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    pytester.makeconftest(INTERRUPTED)
    plain = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider", "--peft-seeds=1")
    chosen = (f"--peft-recipe={tiny_recipe}", "--peft-method=lora", "--peft-silence=V301")
    result = pytester.runpytest_subprocess(*plain, *chosen, "--peft-csv=table.csv")
    assert result.ret == 0, result.stdout.str()
    text = " ".join(result.stdout.str().split())
    assert "the estimates of 1 method were left out by an interrupt" in text
    assert "1 passed" in text
    assert (pytester.path / "table.csv").is_file()


@pytest.mark.parametrize("given", [True, False])
def test_option_leaves_estimates_out(given: bool, pytester: pytest.Pytester) -> None:
    config = pytester.parseconfigure("-p", "peft_methods.plugin", *["--peft-no-estimates"] * given)
    assert read_options(config).experiment().no_estimates == given


def test_session_on_a_cpu_estimates_nothing(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resident memory is another figure than what torch allocates on a GPU."""
    monkeypatch.setattr(LatePredictions, "_ask", lambda *_: no_worker())
    found = compare(
        str(tiny_recipe), methods=["lora"], seeds=1, results=tmp_path / "results", progress=False
    )
    assert [(one.status, one.predicted) for one in found.records] == [("ok", None)]
