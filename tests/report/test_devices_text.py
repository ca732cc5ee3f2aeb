"""What tables say of the devices: number and kind, runs side by side, and seeds of other kinds."""

from __future__ import annotations

from typing import Any

import pytest

from builders import make_record
from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.sections import group_records
from peft_methods.report.text.comparison import markdown_table, terminal_table
from peft_methods.report.text.devices import beside_notes, devices_text
from peft_methods.report.text.setup import setup_line
from peft_methods.runs.record import Record

H200 = {"device": "cuda", "device_name": "NVIDIA H200", "threads": 2, "memory_kind": "device"}


def on(gpu: str, seed: int = 0, metrics: Any = None, **environment: Any) -> Record:
    """Return the record of a run on this GPU."""
    record = make_record(seed=seed)
    return make_record(
        seed=seed,
        environment={**H200, "gpus": [gpu], **environment},
        metrics=record.metrics | (metrics or {}),
    )


def test_setup_names_number_and_kind_of_gpus() -> None:
    one, two = on("GPU-a"), on("GPU-b", 1)
    assert devices_text([one]) == "NVIDIA H200"
    assert devices_text([one, two]) == "2 × NVIDIA H200"
    assert setup_line(Comparison((one, two)), "embedded").endswith("; 2 × NVIDIA H200")
    assert "2 × NVIDIA H200" in markdown_table(Comparison((one, two)))
    older = make_record(environment=H200)
    assert devices_text([older]) == "NVIDIA H200"
    assert devices_text([make_record()]) == "a cpu, 2 threads"


@pytest.mark.parametrize(
    ("turns", "text"), [(False, "with CPU cores of their own"), (True, "but they trained in turns")]
)
def test_notes_say_what_ran_beside_a_run(turns: bool, text: str) -> None:
    records = [on("GPU-a", runs_at_a_time=2, trained_in_turns=turns)]
    assert "Up to 2 runs at a time, one on each GPU" in beside_notes(records)[0]
    table = " ".join(terminal_table(Comparison(tuple(records))).split())
    assert text in table


def test_notes_say_nothing_of_one_run_at_a_time_and_of_a_cpu() -> None:
    assert beside_notes([on("GPU-a", runs_at_a_time=1), on("GPU-a")]) == []
    cpu = make_record()
    cpu = make_record(environment={**cpu.environment, "runs_at_a_time": 2})
    assert beside_notes([cpu]) == []


def test_times_and_memory_of_one_row_are_of_one_kind_of_device() -> None:
    """Quality is that of all seeds."""
    seeds = [
        on("GPU-a", 0, {"train_seconds": 10.0, "accuracy": 0.8}),
        on("GPU-a", 1, {"train_seconds": 12.0, "accuracy": 0.8}),
        on("GPU-b", 2, {"train_seconds": 99.0, "accuracy": 0.5}, device_name="NVIDIA A100"),
    ]
    comparison = Comparison(tuple(seeds))
    (row,) = comparison.rows()
    assert row.mean("train_seconds") == 11.0
    assert row.mean("accuracy") == pytest.approx(0.7)
    (found,) = [one for one in comparison.findings() if one.rule == "V508"]
    assert "seed 2 on NVIDIA A100, the others on NVIDIA H200" in found.evidence


def test_report_of_several_kinds_has_a_section_for_each() -> None:
    records = [on("GPU-a"), on("GPU-b", 1, device_name="NVIDIA A100")]
    first, second = group_records(records)
    assert [len(one.comparison.records) for one in (first, second)] == [1, 1]
    assert second.differences == ("device NVIDIA H200 → NVIDIA A100",)
