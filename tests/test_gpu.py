"""Runs on a real GPU in fresh processes: consistent and repeatable metrics, resume, and errors."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from peft_methods.api import compare
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.events import Event
from peft_methods.runs.record import Record
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import run_specs
from peft_methods.runs.store import Store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.embedded,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.timeout(600),
]
SMALL = (
    "data.train=64",
    "data.validation=32",
    "data.test=64",
    "budget.epochs=1",
    "expect.margin_over_majority=0.0",
)


def test_fork_server_imports_do_not_use_the_gpu() -> None:
    code = "from peft_methods.runs.executors import warm_imports; print(warm_imports.UNFIT_TO_FORK)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )


def train_records(folder: Path, *methods: str, settings: tuple[str, ...] = ()) -> list[Record]:
    done = compare(
        "embedded",
        methods=methods,
        seeds=1,
        settings=[*SMALL, *settings],
        results=folder,
        progress=False,
    )
    return [record for record in done.records if record.role == "main"]


def test_memory_metrics_add_up_and_peaks_repeat_to_the_byte(tmp_path: Path) -> None:
    first, second = (
        train_records(tmp_path / run, "full", "lora", "qlora", settings=("budget.precision=bf16",))
        for run in ("a", "b")
    )
    for record in first:
        metrics = record.metrics
        peak, unattributed = metrics["peak_memory_bytes"], metrics["unattributed_bytes"]
        assert record.status == "ok", record.message
        assert peak
        assert unattributed is not None
        assert abs(unattributed) <= 0.05 * peak, metrics
        assert metrics["weights_bytes"]
        assert metrics["train_reserved_bytes"] >= peak  # type: ignore[operator]
        assert metrics["train_device_bytes"] >= metrics["train_reserved_bytes"]  # type: ignore[operator]
        assert 0 < (metrics["model_flops_utilization"] or 0) < 1
        assert 0 < (metrics["step_median_seconds"] or 0) <= (metrics["step_p95_seconds"] or 0)
        assert record.environment["gpu"]["after"]["sm_clock_mhz"]
        assert record.environment["driver"]
    assert [r.metrics["peak_memory_bytes"] for r in first] == [
        r.metrics["peak_memory_bytes"] for r in second
    ]


@pytest.mark.parametrize("engine", ["trainer", "cuda_graphs"])
def test_deterministic_run_is_bit_identical_when_repeated(tmp_path: Path, engine: str) -> None:
    results = []
    for run in ("a", "b"):
        done = compare(
            "embedded",
            methods=["full", "lora", "qlora", "ia3"],
            seeds=1,
            settings=[*SMALL, "budget.precision=bf16"],
            engine=engine,
            deterministic=True,
            results=tmp_path / run,
            progress=False,
        )
        assert {record.status for record in done.records} == {"ok"}, [
            record.message for record in done.records
        ]
        results.append(
            [
                (r.epochs[0]["train_loss"], done.predictions[r.fingerprint].logits.tolist())
                for r in done.records
            ]
        )
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "settings",
    [
        ("budget.precision=fp16",),
        ("budget.precision=tf32",),
        (
            "budget.precision=bf16",
            "budget.gradient_accumulation=2",
            "budget.gradient_checkpointing=true",
        ),
    ],
    ids=",".join,
)
def test_steps_are_captured_for_every_budget(tmp_path: Path, settings: tuple[str, ...]) -> None:
    (record,) = train_records(tmp_path, "lora", settings=settings)
    assert (record.status, record.environment["engine_note"]) == ("ok", ""), record.message
    assert all(math.isfinite(epoch["train_loss"] or math.nan) for epoch in record.epochs)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition was not met within {seconds} s"
        time.sleep(0.001)


def test_killed_run_resumes_with_captured_steps(tmp_path: Path) -> None:
    """Kill a run after the first of five epochs. Resumed, it equals an uninterrupted run."""
    recipe = load_recipe(
        "embedded", [*SMALL, "data.train=400", "budget.epochs=5", "budget.seeds=1"]
    )
    (run,) = run_specs(
        recipe, chosen_methods(recipe, ["lora"])[0], "cuda", "cuda_graphs", deterministic=True
    )

    def train(name: str, *, killed: bool = False) -> tuple[Record, Store]:
        store = Store(tmp_path / name)
        store.prepare()
        scheduler = new_scheduler(store, "cuda", workers=1, checkpoint=True, retries=0)

        def kill_after_first_checkpoint(event: Event) -> None:
            if (
                event.news
                and event.news.get("epoch") == 1
                and event.news.get("validation_accuracy") is not None
            ):
                wait_until(lambda: bool(list(store.checkpoints_of(run.key).glob("epoch-*"))))
                (worker,) = scheduler._running
                os.kill(worker.process, signal.SIGKILL)

        if killed:
            scheduler.watch(kill_after_first_checkpoint)
        try:
            scheduler.submit([run])
            return scheduler.wait([run])[0], store
        finally:
            scheduler.close()

    assert train("killed", killed=True)[0].status == "crashed"
    (resumed, store), (uninterrupted, other) = train("killed"), train("uninterrupted")
    assert resumed.status == uninterrupted.status == "ok", resumed.message
    assert (resumed.environment["engine_note"], uninterrupted.environment["engine_note"]) == (
        "",
        "",
    )
    assert resumed.environment["resumed_after_epochs"]
    assert [epoch["train_loss"] for epoch in resumed.epochs] == [
        epoch["train_loss"] for epoch in uninterrupted.epochs
    ]
    assert (
        store.read_predictions(resumed).logits.tolist()
        == other.read_predictions(uninterrupted).logits.tolist()
    )


def test_full_gpu_gives_an_oom_record(tmp_path: Path) -> None:
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - int(1.6 * 2**30), dtype=torch.uint8, device="cuda")
    try:
        (record,) = train_records(
            tmp_path,
            "full",
            settings=("budget.batch_size=64", "data.max_length=512", "data.train=4000"),
        )
    finally:
        del taken
        torch.cuda.empty_cache()
    assert record.status == "oom"
    assert "out of memory while training" in record.message
    assert "budget.batch_size" in record.message
