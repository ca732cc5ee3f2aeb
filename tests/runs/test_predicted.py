"""Predictions beside runs: limits that leave runs out, plans, records, and advice."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from estimate_builders import FormulaEstimator, refusing

from builders import runs
from peft_methods.analysis.checks import run_checks
from peft_methods.analysis.predicted import errors_of, summaries
from peft_methods.api import compare
from peft_methods.report.text.dry_run import plan_text
from peft_methods.runs.code_fingerprint import code_closure
from peft_methods.runs.plan import RunGroup
from peft_methods.runs.predicted import Limit, Prediction
from peft_methods.runs.predicting import predictions
from peft_methods.runs.preparations import with_prediction, within_limits, without_estimate
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.spec import PIPELINE, RunSpec

COST = Prediction(9e9, 8.9e9, 9.2e9, 10.4e9, 300.0, 270.0, 330.0, "datasheet")
TRAINER = {"full": "trainer", "lora": "trainer"}
FACTS = {"class_counts": {"train": (80, 80), "validation": (8, 8), "test": (20, 20)}}


@pytest.fixture
def run(tiny_recipe: Path) -> RunSpec:
    """One run of LoRA."""
    return runs(tiny_recipe, "lora")[0]


def prepared(**predicted: Prediction) -> PreparedRecipe:
    """A checked recipe with predictions."""
    return PreparedRecipe(FACTS, {}, 0.01, 1.0, predicted=predicted)


def group(run: RunSpec) -> RunGroup:
    """The group of one run."""
    return RunGroup(run.recipe, run.method, (run,))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"memory": Limit("10GB", 10e9)}, "it needs a GPU with 10.4 GB by the estimate, more than"),
        ({"memory": Limit("16GB", 16e9)}, None),
        ({"time": Limit("2min", 120)}, "it takes about 5 min 00 s by the estimate, more than"),
        ({"time": Limit("2h", 7200), "memory": Limit("16GB", 16e9)}, None),
        ({}, None),
    ],
)
def test_limits_leave_out_with_the_figure(
    limits: dict[str, Limit], reason: str | None, run: RunSpec
) -> None:
    made = within_limits(prepared(lora=COST), [group(run)], limits)
    assert (made.unsupported.get("lora") or "").startswith(reason or "")
    assert bool(made.unsupported) == bool(reason)
    text = plan_text([group(run)], {run.recipe.name: made}, {}, 1)
    assert ("skipped: it" in text) == bool(reason)
    assert "9.00 GB (8.90–9.20)" in text
    if not reason:
        assert "1 × 5 min 00 s" in text


def test_plan_without_predictions_has_no_column(run: RunSpec) -> None:
    assert "GPU" not in plan_text([group(run)], {run.recipe.name: prepared()}, {}, 1)


def test_limit_that_cannot_be_checked_is_named(run: RunSpec) -> None:
    limits = {"memory": Limit("10GB", 10e9)}
    made = within_limits(prepared(), [group(run)], limits)
    assert made.unsupported == {}
    (note,) = without_estimate({run.recipe.name: made}, [group(run)], limits)
    assert "memory=10GB was not checked for tiny-lora" in note
    assert without_estimate({run.recipe.name: prepared(lora=COST)}, [group(run)], limits) == []


def test_session_skips_what_takes_too_long(tiny_recipe: Path, tmp_path: Path) -> None:
    compared = compare(
        str(tiny_recipe),
        methods=["lora"],
        seeds=1,
        fit="time=0.01s",
        results=tmp_path / "results",
        progress=False,
    )
    (record,) = compared.records
    assert record.status == "skipped"
    assert "more than time=0.01s" in record.message


def test_kept_check_without_predictions_does_not_lift_a_limit(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """The records of the first session are reused, but not its check, which predicted nothing."""
    again = partial(
        compare,
        str(tiny_recipe),
        methods=["lora"],
        seeds=1,
        results=tmp_path / "results",
        progress=False,
    )
    assert [one.status for one in again().records] == ["ok"]
    for _ in range(2):  # the second time by the kept predictions
        (record,) = again(fit="memory=100MB").records
        assert record.status == "skipped"
        assert "by the estimate, more than memory=100MB" in record.message
    assert [(one.status, one.reused) for one in again(fit="memory=900GB").records] == [("ok", True)]


def test_runs_over_several_gpus_are_left_in_with_a_note(run: RunSpec) -> None:
    budget = replace(run.recipe.budget, gpus=2, strategy="ddp")
    recipe = replace(run.recipe, budget=budget)
    several, limits = (
        RunGroup(recipe, run.method, (replace(run, recipe=recipe),)),
        {
            "memory": Limit("1MB", 1e6),
            "time": Limit("1s", 1.0),
        },
    )
    made = within_limits(prepared(), [several], limits)
    assert made.unsupported == {}
    (note,) = without_estimate({recipe.name: made}, [several], limits)
    assert note == (
        "memory=1MB,time=1s was not checked for tiny-lora: runs over several GPUs are not estimated"
    )
    text = plan_text([several], {recipe.name: made}, {}, 1)
    assert "Runs over several GPUs are not estimated." in text


def test_plan_imports_no_torch() -> None:
    code = "import sys, peft_methods.report.text.dry_run; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_prediction_is_kept_beside_the_measurement_and_no_part_of_the_run(run: RunSpec) -> None:
    on_gpu = replace(run, device="cuda")
    found = with_prediction(on_gpu, {run.recipe.name: prepared(lora=COST)})
    assert found.predicted == COST
    assert (found.key, found) == (on_gpu.key, on_gpu)
    assert with_prediction(run, {run.recipe.name: prepared(lora=COST)}).predicted is None
    record = record_without_result(found, "failed", "")
    again = Record.from_json(json.loads(json.dumps(record.to_json())))
    assert again.predicted == COST
    old = record.to_json()
    del old["predicted"]
    assert Record.from_json(old).predicted is None


def test_code_of_estimates_is_no_part_of_a_run() -> None:
    assert not [name for name in code_closure(PIPELINE) if "estimation" in name]


def test_out_of_memory_quotes_the_estimate(run: RunSpec) -> None:
    record = record_without_result(replace(run, predicted=COST), "oom", "out of memory.")
    assert record.message == (
        "out of memory. The estimate before the run was a peak of 9.0 GB: by estimate it needs a "
        "GPU with at least 10.4 GB."
    )


@pytest.mark.parametrize(("measured", "found"), [(9.1e9, False), (11e9, True)])
def test_finding_says_when_the_estimate_was_wrong(
    measured: float, found: bool, run: RunSpec
) -> None:
    on_gpu = replace(run, device="cuda", predicted=COST)
    failed = record_without_result(on_gpu, "failed", "")
    metrics = {"peak_memory_bytes": measured, "train_seconds": 310.0}
    record = replace(failed, status="ok", metrics=metrics)
    rules = [one for one in run_checks([record]) if one.rule == "V426"]
    assert bool(rules) == found
    whole, of_method, of_model = summaries(errors_of(record), "peak_memory_bytes")
    assert whole.median == pytest.approx(abs(9e9 / measured - 1))
    assert whole.too_low == float(found)
    assert whole.in_range == float(not found)
    assert (whole.name, of_method.name, of_model.count) == ("all", "LoRA", 1)


@pytest.mark.parametrize(
    ("seconds", "epochs", "note", "found"),
    [
        (310.0, 2, "", []),
        (270.1, 2, "", []),  # 11 % below, but within its range
        (340.0, 2, "", ["the estimate of the training time"]),
        (150.0, 1, "", []),  # stopped early
        (340.0, 2, "it captures encoders alone", []),
    ],
)
def test_time_is_judged_by_its_own_range(
    seconds: float, epochs: int, note: str, found: list[str], run: RunSpec
) -> None:
    budget = replace(run.recipe.budget, epochs=2)
    own = replace(run, device="cuda", predicted=COST, recipe=replace(run.recipe, budget=budget))
    record = replace(
        record_without_result(own, "failed", ""),
        status="ok",
        metrics={"train_seconds": seconds},
        epochs=[{}] * epochs,
        environment={"engine_note": note},
    )
    rules = [one for one in run_checks([record]) if one.rule == "V426"]
    assert [one.evidence.partition(" was ")[0] for one in rules] == found


def test_failed_estimate_is_no_prediction_and_no_failure(
    run: RunSpec, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = FormulaEstimator(failing={"full": refusing("no")})
    monkeypatch.setattr("peft_methods.runs.predicting.default_estimator", lambda: estimator)
    full, *_ = runs(tiny_recipe, "full")
    found = predictions(run.recipe, [full.method, run.method], TRAINER)
    assert set(found) == {"lora"}
    assert found["lora"].needed_bytes is not None
    estimator.failing["lora"] = ZeroDivisionError("in a library")
    assert predictions(run.recipe, [run.method], TRAINER) == {}
