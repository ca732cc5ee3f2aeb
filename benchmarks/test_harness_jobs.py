"""Benchmarks of whole jobs. Run `pytest benchmarks -m harness`."""

from __future__ import annotations

import itertools
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import need_gpu

# Warnings of the compiler and the allocator do not matter: these tests measure time.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.harness
@pytest.mark.gpu
def test_time_between_runs(benchmark: Any, tmp_path: Path) -> None:
    """Measure the seconds from a run's last training step to the next run's first.

    2,000 rows are evaluated in between. The first run fills the caches and is left out.
    """
    need_gpu()
    from peft_methods.api import compare
    from peft_methods.profiling.phases import PHASES

    settings = ["data.train=1500", "budget.epochs=2"]
    arguments = {
        "methods": ["lora"],
        "seeds": 5,
        "weights": "random",
        "settings": settings,
        "results": tmp_path,
        "progress": False,
    }
    comparison = benchmark.pedantic(compare, args=("imdb_roberta",), kwargs=arguments, rounds=1)
    warm = sorted(comparison.records, key=lambda record: record.environment["trained_between"])[1:]
    trained = [record.environment["trained_between"] for record in warm]
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(trained)]
    spent = {
        phase: statistics.median(record.metrics[f"{phase}_seconds"] or 0.0 for record in warm)
        for phase in PHASES
        if phase != "train"
    }
    benchmark.extra_info.update(gap_seconds=gaps, phase_seconds=spent)
    print(
        f"between runs: {statistics.median(gaps):.1f} s (median of {len(gaps)}), "
        f"{min(gaps):.1f} to {max(gaps):.1f}"
    )
    print(
        "phases of a run: "
        + ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in spent.items())
    )


JOB_METHODS = ("full", "lora", "qlora", "ia3")
LEAST_SPEED_UP = 1.85  # of two GPUs over one
MOST_DIFFERENCE = 0.02  # of a run's training time and energy beside another one


@pytest.mark.harness
@pytest.mark.gpu
def test_two_gpus_against_one(benchmark: Any, tmp_path: Path) -> None:
    """Compare the wall time of a job on two GPUs with that on each of them alone.

    Each run's training time and energy are compared with those of the same run alone on its GPU:
    two GPUs of one kind may differ by more than their runs disturb each other.
    """
    need_gpu()
    from peft_methods.runs.executors.gpu_choice import choose_gpus

    gpus = [gpu.uuid for gpu in choose_gpus().gpus[:2]]
    if len(gpus) < 2:
        pytest.skip("needs two NVIDIA GPUs of one kind")
    _seconds_and_records(gpus, tmp_path / "warm", seeds=1)  # what is compiled is in the cache
    first, second = (_seconds_and_records([gpu], tmp_path / gpu) for gpu in gpus)
    both = benchmark.pedantic(_seconds_and_records, args=(gpus, tmp_path / "both"), rounds=1)
    speed_up = (first[0] + second[0]) / 2 / both[0]
    alone = {
        (_run_of(record), *record.environment["gpus"]): record for record in first[1] + second[1]
    }
    changes = {
        metric: [
            (record.metrics[metric] or 0.0)
            / (alone[_run_of(record), *record.environment["gpus"]].metrics[metric] or math.nan)
            - 1
            for record in both[1]
        ]
        for metric in ("train_seconds", "energy_joules")
    }
    means = {metric: statistics.mean(found) for metric, found in changes.items()}
    benchmark.extra_info.update(speed_up=speed_up, changes=changes)
    print(f"two GPUs: {speed_up:.2f} times as fast; beside another run: {means}")
    assert speed_up >= LEAST_SPEED_UP
    assert max(map(abs, means.values())) <= MOST_DIFFERENCE, changes


def _run_of(record: Any) -> tuple[str, int]:
    return record.method_name, record.seed


def _seconds_and_records(gpus: list[str], folder: Path, seeds: int = 3) -> tuple[float, Any]:
    """Train four methods with random weights; return the wall time and the records."""
    from peft_methods.api import compare

    began = time.perf_counter()
    done = compare(
        "imdb_roberta",
        methods=JOB_METHODS,
        seeds=seeds,
        weights="random",
        settings=["budget.epochs=2"],
        devices=gpus,
        results=folder,
        progress=False,
    )
    return time.perf_counter() - began, list(done.records)


def _notebook_job(settings: list[str], folder: str) -> None:
    """Train four methods one after the other in one process, as a notebook does.

    Each is evaluated after each epoch.
    """
    from pace import Setup

    for method in JOB_METHODS:
        setup = Setup(
            "imdb_roberta",
            method,
            ["model.weights=random", "budget.precision=fp32", *settings],
            "cuda",
        )
        setup.run_notebook(Path(folder))


@pytest.mark.harness
@pytest.mark.gpu
def test_whole_job_against_the_notebooks(benchmark: Any, tmp_path: Path) -> None:
    """Measure seconds from process start to the table, with cold and with warm caches.

    In "one process" the runs share a process, as with `--peft-isolation=warm`.
    Full fine-tuning, LoRA, QLoRA and IA3 train 5 epochs of 3,000 reviews and evaluate 2,000.
    """
    need_gpu()
    benchmarks = str(Path(__file__).parent)
    ours = [
        sys.executable,
        "-m",
        "pytest",
        f"{benchmarks}/test_finetune.py",
        "-m",
        "gpu",
        "-q",
        "--peft-recipe=imdb_roberta",
    ]
    ours += ["--peft-weights=random", f"--peft-method={','.join(JOB_METHODS)}", "--peft-seeds=1"]
    ours += ["--peft-fresh", f"--peft-results={tmp_path}"]  # reused records would cost no time
    script = (
        f"import sys; sys.path.insert(0, {benchmarks!r}); import test_harness_jobs; "
        f"test_harness_jobs._notebook_job([], {str(tmp_path)!r})"
    )
    cache = str(tmp_path / "cache")
    environment = {"CUDA_VISIBLE_DEVICES": "0", **os.environ, "XDG_CACHE_HOME": cache}
    seconds: dict[str, float] = {}
    details: dict[str, str] = {}

    def measure() -> None:
        for name, command in (
            ("cold", ours),
            ("warm", ours),
            ("one process", [*ours, "--peft-isolation=warm"]),
            ("notebook", [sys.executable, "-c", script]),
        ):
            started = time.time()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            seconds[name] = time.time() - started
            details[name] = (
                "" if name == "notebook" else f"{_gaps(tmp_path, started)}; {_captures(tmp_path)}"
            )
            print(f"{name}: {seconds[name]:.1f} s {details[name]}", flush=True)

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info.update(job_seconds=seconds, runs=details)
    ours_seconds = ", ".join(
        f"{name} {seconds[name]:.0f} s ({seconds['notebook'] / seconds[name]:.1f}x)"
        for name in ("cold", "warm", "one process")
    )
    print(f"whole job: notebook {seconds['notebook']:.0f} s, ours {ours_seconds}")


def _gaps(results: Path, started: float) -> str:
    """Describe the time to the first training step and the gaps between runs.

    A gap is the time from a run's last training step to the next run's first.
    """
    from peft_methods.runs.store import Store

    done = [
        record.environment["trained_between"]
        for record in Store(results).records()[0]
        if record.status == "ok"
    ]
    trained = sorted(between for between in done if between[0] >= started)
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(trained)]
    return f"first step after {trained[0][0] - started:.1f} s, between runs " + ", ".join(
        f"{gap:.1f} s" for gap in gaps
    )


def _captures(results: Path) -> str:
    """Describe each run's capture time, compiled graphs and reserved memory.

    Reserved memory is given as a multiple of that of the eager peak step.
    """
    from peft_methods.runs.store import Store

    lines = []
    for record in sorted(Store(results).records()[0], key=lambda record: record.finished):
        metrics, graphs = record.metrics, record.environment.get("compiled_graphs")
        if not graphs or not metrics["engine_reserved_bytes"]:
            reason = record.message or record.environment.get("engine_note")
            lines.append(f"{record.method_name} not captured: {reason}")
            continue
        reserved = metrics["engine_reserved_bytes"] / (
            metrics["train_reserved_bytes"] or float("nan")
        )
        lines.append(
            f"{record.method_name} captured in {metrics['capture_seconds']:.1f} s "
            f"({graphs['cached']} graphs from the cache, {graphs['compiled']} compiled), "
            f"reserved {reserved:.2f}x"
        )
    return "; ".join(lines)
