"""One run of a session is repeated in a fresh process: what is the same, and what follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import make_record, runs
from peft_methods.analysis import checks
from peft_methods.runs.isolation.comparison import differences
from peft_methods.runs.isolation.repeat import chosen
from peft_methods.runs.record import Record
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.store import Store

EPOCH = {"epoch": 1.0, "train_loss": 0.6, "validation_loss": 0.5}  # of `make_record`


def warm_record(seed: int = 0, before: int = 1, **changes: Any) -> Record:
    record = make_record(seed=seed, **changes)
    isolation = {"process": "warm", "runs_before": before, "left_behind": []}
    return replace(record, environment={**record.environment, "isolation": isolation})


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    logits = np.asarray([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)
    return write(tmp_path / "a.npz", logits=logits), write(tmp_path / "b.npz", logits=logits)


def test_same_results_do_not_differ(files: tuple[Path, Path]) -> None:
    assert differences(warm_record(), make_record(), *files) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"epochs": (EPOCH | {"train_loss": 0.6000001},)}, "train_loss of epoch 1"),
        ({"fingerprint": "other"}, "fingerprint is lora0, and other in a fresh process"),
        ({"best_epoch": 7}, "best epoch"),
        ({"metrics": {"peak_memory_bytes": 2.0**29}}, "peak_memory_bytes is 268,435,456"),
        ({"status": "oom", "message": "no room"}, "it ended as oom there: no room"),
    ],
)  # fmt: skip
def test_each_difference_is_named(
    files: tuple[Path, Path], changes: dict[str, Any], found: str
) -> None:
    other = make_record(**changes)
    if "metrics" in changes:
        other = replace(make_record(), metrics={**make_record().metrics, **changes["metrics"]})
    assert any(found in line for line in differences(warm_record(), other, *files))


def test_single_bit_of_a_prediction_is_a_difference(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    other = np.asarray([[0.25, 0.75], [0.5, np.nextafter(np.float32(0.5), 1)]], dtype=np.float32)
    changed = write(tmp_path / "c.npz", logits=other)
    (line,) = differences(warm_record(), make_record(), files[0], changed)
    assert line == "the predictions differ (logits)"


def test_resident_memory_may_differ_a_little_and_memory_of_a_gpu_may_not(
    files: tuple[Path, Path],
) -> None:
    metrics = {**make_record().metrics, "peak_memory_bytes": 2.0**28 * 1.02}
    assert differences(warm_record(), make_record(metrics=metrics), *files) == []
    on_gpu = replace(make_record().spec, device="cuda")
    one = replace(warm_record(), spec=on_gpu)
    other = replace(make_record(metrics=metrics), spec=on_gpu)
    assert [line.split()[0] for line in differences(one, other, *files)] == ["peak_memory_bytes"]


@pytest.mark.parametrize(
    ("name", "more", "count"),
    [
        ("evaluate_allocated_bytes", 2**20, 0),
        ("evaluate_allocated_bytes", 2**20 + 512, 1),
        ("train_allocated_bytes", 512, 1),
    ],
)
def test_on_a_gpu_only_peaks_outside_training_may_differ_by_a_block(
    name: str, more: int, count: int, files: tuple[Path, Path]
) -> None:
    spec = replace(make_record().spec, device="cuda")
    one, other = (
        replace(made, metrics={**made.metrics, name: 2**28 + own}, spec=spec)
        for made, own in ((warm_record(), more), (make_record(), 0))
    )
    assert len(differences(one, other, *files)) == count


@pytest.mark.parametrize(
    ("changes", "deterministic", "count"),
    [
        ({"validation_loss": 0.9, "train_loss": 0.7}, False, 0),  # weights have drifted apart
        ({"validation_loss": 0.9, "train_loss": 0.7}, True, 2),
        ({"first_loss": 11.01}, False, 0),
        ({"first_loss": 11.2}, False, 1),
        ({"first_loss": 11.00001}, True, 1),
        ({"first_loss": float("nan")}, False, 1),
        ({"first_loss": None}, False, 1),
    ],
)
def test_on_a_gpu_only_the_first_loss_must_agree_unless_the_run_is_deterministic(
    files: tuple[Path, Path], changes: dict[str, Any], deterministic: bool, count: int
) -> None:
    spec = replace(make_record().spec, device="cuda", deterministic=deterministic)
    epochs = EPOCH | {"first_loss": 11.0}
    one = replace(warm_record(epochs=(epochs,)), spec=spec)
    other = replace(make_record(epochs=(epochs | changes,)), spec=spec)
    assert len(differences(one, other, *files)) == count


def test_run_to_repeat_is_a_warm_one_of_the_shorter_half_and_depends_on_all() -> None:
    def record(seed: int, before: int, seconds: float, name: str) -> Record:
        metrics = {**make_record().metrics, "train_seconds": seconds}
        return warm_record(seed, before, metrics=metrics, fingerprint=f"{name}{seed}")

    sessions = [
        [record(seed, seed, 10.0 + seed, f"session{number}-") for seed in range(9)]
        for number in range(20)
    ]
    found = [chosen(records) for records in sessions]
    assert {one.seed for one in found if one is not None} == {1, 2, 3, 4}
    assert found == [chosen(records[::-1]) for records in sessions]
    assert chosen([record(0, 0, 1.0, "")]) is None


def test_warm_run_is_repeated_and_the_outcome_is_stored(tiny_recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.prepare()
    scheduler = new_scheduler(store, "cpu", workers=1, isolation="warm")
    wanted = runs(tiny_recipe, "head_only", "budget.seeds=2", "budget.epochs=1")
    scheduler.submit(wanted)
    scheduler.wait(wanted)
    (marked,) = scheduler.verify()
    scheduler.close()
    assert marked.environment["isolation"]["repeated"] == {
        "run": "tiny-head_only-seed1", "differences": [],
    }  # fmt: skip
    stored = {record.seed: record for record in store.records()[0]}
    assert stored[1].environment == marked.environment
    assert "repeated" not in stored[0].environment["isolation"]
    assert store.damage(stored[1]) == ""
    assert [one.rule for one in checks.run_checks([marked]) if one.rule in {"V414", "V415"}] == []


def test_difference_marks_every_warm_record_and_is_an_error(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "peft_methods.runs.isolation.repeat.differences", lambda *_: ["the predictions differ"]
    )
    store = Store(tmp_path / "results")
    store.prepare()
    scheduler = new_scheduler(store, "cpu", workers=1, isolation="warm")
    wanted = runs(tiny_recipe, "head_only", "budget.seeds=3", "budget.epochs=1")
    scheduler.submit(wanted)
    scheduler.wait(wanted)
    marked = scheduler.verify()
    scheduler.close()
    assert sorted(record.seed for record in marked) == [1, 2]
    (finding,) = [one for one in checks.run_checks(marked[:1]) if one.rule == "V414"]
    assert finding.severity == "error"
    assert "the predictions differ" in finding.evidence
