"""Runs on a real GPU in fresh processes: consistent and repeatable metrics, resume, and errors."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from peft_methods.api import compare
from peft_methods.methods.selection import chosen_methods
from peft_methods.profiling import nvml
from peft_methods.profiling.gpus import gpus_here
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.events import Event
from peft_methods.runs.executors.gpu_choice import choose_gpus
from peft_methods.runs.record import Record
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import run_specs
from peft_methods.runs.store import Store
from peft_methods.training import weight_checks

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


def test_hash_of_a_weight_on_the_gpu_is_that_on_the_host() -> None:
    """Also of weights that are copied in several pieces."""
    for count, dtype in ((3 * 2**24 + 5, torch.float32), (7, torch.bfloat16), (1, torch.uint8)):
        values = torch.randint(0, 100, (count,)).to(dtype)
        found = {
            weight_checks.fingerprint(torch.nn.Parameter(values.to(device), requires_grad=False))
            for device in ("cpu", "cuda")
        }
        assert len(found) == 1


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


def test_a_linear_probe_falls_back_to_the_trainer_and_its_memory_adds_up(tmp_path: Path) -> None:
    """Its features are a part of the peak, and it needs no more memory than head only."""
    settings = ("budget.epochs=4", "budget.precision=bf16")
    (probe,) = train_records(tmp_path / "probe", "linear_probe", settings=settings)
    (plain,) = train_records(tmp_path / "plain", "head_only", settings=settings)
    assert [probe.status, plain.status] == ["ok", "ok"], (probe.message, plain.message)
    assert probe.spec.engine == "trainer"
    assert probe.environment["engine_note"].startswith("Linear probe has other steps in its first")
    peak, unattributed = (
        probe.metrics[f"{name}_bytes"] for name in ("peak_memory", "unattributed")
    )
    assert peak
    assert unattributed is not None
    assert abs(unattributed) <= 0.05 * peak, probe.metrics
    assert peak <= 1.05 * (plain.metrics["peak_memory_bytes"] or 0)
    flops = [(one.metrics["model_flops_utilization"] or 0) for one in (probe, plain)]
    seconds = [(one.metrics["train_seconds"] or 0) for one in (probe, plain)]
    assert 0 < flops[0] * seconds[0] < 0.5 * flops[1] * seconds[1]  # one pass instead of four
    steps = [epoch["train_seconds"] for epoch in probe.epochs]
    assert min(steps[1:]) < steps[0]  # type: ignore[type-var]


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


def two_gpus() -> list[str]:
    """Return the UUIDs of two GPUs of one kind. Skips the test without them."""
    chosen = [gpu.uuid for gpu in choose_gpus().gpus]
    if len(chosen) < 2:
        pytest.skip(f"needs 2 NVIDIA GPUs of one kind; visible: {len(chosen)}")
    return chosen[:2]


def figures(records: Sequence[Record]) -> dict[tuple[str, int], object]:
    """Return what must be equal to the bit: quality, losses and predictions of each run."""
    return {
        (record.method_name, record.seed): (
            record.metrics["accuracy"],
            [epoch["train_loss"] for epoch in record.epochs],
        )
        for record in records
    }


def test_runs_on_two_gpus_have_the_quality_of_those_on_one(tmp_path: Path) -> None:
    both = two_gpus()

    def train(folder: str, devices: list[str]) -> list[Record]:
        done = compare(
            "embedded",
            methods=["lora", "ia3"],
            seeds=2,
            settings=[*SMALL, "budget.epochs=20"],  # long enough for the counter of energy
            deterministic=True,
            devices=devices,
            results=tmp_path / folder,
            progress=False,
        )
        assert {record.status for record in done.records} == {"ok"}, done.records[0].message
        return list(done.records)

    one, two = train("one", both[1:]), train("two", both)
    assert figures(one) == figures(two)
    assert {tuple(record.environment["gpus"]) for record in one} == {(both[1],)}
    assert {tuple(record.environment["gpus"]) for record in two} == {(gpu,) for gpu in both}
    assert {record.environment["runs_at_a_time"] for record in two} == {2}
    assert all(record.metrics["energy_joules"] for record in two)


def test_run_uses_the_gpu_that_was_named_and_leaves_the_other_alone(tmp_path: Path) -> None:
    both = two_gpus()
    used = nvml.used_bytes_by_uuid()
    done = compare(
        "embedded", methods=["lora"], seeds=1, settings=SMALL, devices="1",
        results=tmp_path, progress=False,
    )  # fmt: skip
    (record,) = done.records
    assert record.environment["gpus"] == [gpus_here()[1].uuid]
    assert record.environment["gpu"]["before"]["other_processes"] == []
    assert nvml.used_bytes_by_uuid()[both[0]] == pytest.approx(used[both[0]], rel=0.1)


def test_workers_of_xdist_have_gpus_of_their_own(pytester: pytest.Pytester) -> None:
    two_gpus()
    pytester.makepyfile(
        """
        import os, time
        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_own(peft_devices, number):
            import torch
            (own,) = peft_devices
            assert torch.cuda.device_count() == 1
            assert str(torch.cuda.get_device_properties(0).uuid) in own
            assert torch.ones(4, device="cuda").sum().item() == 4
        """
    )
    own = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider", "-n", "3")
    pytester.runpytest_subprocess(*own).assert_outcomes(passed=6)
