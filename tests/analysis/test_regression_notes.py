"""Notes of the regression check on devices, upgrades and noise."""

from __future__ import annotations

from dataclasses import replace

from builders import make_record
from peft_methods.analysis.baseline import Entry
from peft_methods.analysis.regression_notes import busy, device_notes, limit_notes, upgrade_notes
from peft_methods.analysis.regression_report import Change
from peft_methods.analysis.tolerances import parse_tolerance

ACCURACY = parse_tolerance("accuracy:1pp")
RECORD = make_record()


def change(worse: float, explained: float | None, limit: str = "") -> Change:
    return Change(ACCURACY, 0.9, 0.9 - worse, worse, explained, limit=limit)


def entry(**environment: object) -> Entry:
    known = {**RECORD.environment, **environment}
    return Entry("embedded", "lora", (0,), {"accuracy": (0.9,)}, {}, RECORD.data, known)


def test_metric_with_unknown_noise_is_not_judged() -> None:
    notes = list(limit_notes([change(0.0, 0.02), change(0.0, None, "one seed; needs two")]))
    assert notes == [("accuracy is not judged: one seed; needs two", "accuracy")]


def test_changes_within_the_noise_are_named() -> None:
    ((text, metric),) = limit_notes([change(0.0, 0.02), change(0.0, 0.034)])
    assert metric == "accuracy"
    assert text == (
        "accuracy: changes of less than 2pp to 3.4pp are not judged (tolerance 1pp): "
        "the spread of the figures; needs more seeds or sessions"
    )
    assert not list(limit_notes([change(0.0, 0.005)]))


def test_another_device_is_named() -> None:
    assert not list(device_notes(entry(), RECORD))
    (text,) = device_notes(entry(device_name="NVIDIA H100", device="cuda"), RECORD)
    assert text == (
        "another device (NVIDIA H100 → a cpu, 2 threads): quality is compared, "
        "time and memory are not"
    )


def test_upgrade_names_what_moved() -> None:
    newer = replace(RECORD, environment={**RECORD.environment, "packages": {"torch": "2.12.0"}})
    before = entry(packages={"torch": "2.11.0"})
    (text,) = upgrade_notes(before, newer, [change(0.05, 0.02)])
    assert text == (
        "with torch 2.11.0 → 2.12.0: accuracy fell from 90.0 % to 85.0 % "
        "(chance explains up to 2pp)"
    )
    (text,) = upgrade_notes(before, newer, [change(0.05, 0.08)])
    assert text.endswith("85.0 %, which chance explains (up to 8pp)")
    (text,) = upgrade_notes(before, newer, [change(0.05, None)])
    assert text.endswith("85.0 %, which cannot be told from chance")
    (text,) = upgrade_notes(before, newer, [change(0.001, 0.02)])
    assert text.endswith("no metric moved by more than its tolerance")
    assert not list(upgrade_notes(before, RECORD, []) if "packages" in RECORD.environment else [])


def test_busy_machine_is_mentioned_for_times_only() -> None:
    record = replace(RECORD, metrics={**RECORD.metrics, "busy_share": 0.4})
    assert "for 40% of the time" in busy("train_seconds", [record])
    assert not busy("accuracy", [record])
    assert not busy("train_seconds", [RECORD])
