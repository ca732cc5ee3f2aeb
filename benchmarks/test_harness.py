"""Benchmarks of the harness: its overhead and its speed-up. Run `pytest benchmarks -m harness`."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

# Warnings of the compiler and the allocator do not matter: these tests measure time.
pytestmark = pytest.mark.filterwarnings("ignore")
METHODS = ("full", "lora", "qlora", "ia3", "adapter")
TRAINING_LOOPS = (  # name, steps of a window, windows
    ("notebook", 12, 3),
    ("tuned", 24, 3),
    ("tuned, no cuDNN", 24, 3),
    ("trainer", 24, 3),
    ("cuda_graphs", 47, 5),
)
MEASURING_PAIRS = 16
FIXED = [
    "data.max_length=256",
    "data.token_lengths=[256,256]",
    "budget.padding=fixed",
    "budget.batch_size=64",
]
EMBEDDED = ["budget.epochs=1", "data.validation=2", "data.test=2"]
# The architecture of roberta-base, and 3,000 rows with the lengths of IMDb's reviews.
IMDB = ["model.weights=random", "data.validation=2", "data.test=2"]


def _need_gpu() -> None:
    from peft_methods.profiling.environment import find_device

    if find_device() == "cpu":
        pytest.skip("needs an NVIDIA GPU")


def _per_thousand(seconds: list[float], rows: int) -> float:
    return 1000 * statistics.median(seconds) / rows


@pytest.mark.harness
@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_cuda_graphs_steps_against_the_trainers(
    method: str, benchmark: Any, tmp_path: Path
) -> None:
    """Measure seconds per 1,000 reviews, as medians of windows.

    Compares the Trainer of notebooks, a tuned Trainer, the trainer engine and the cuda_graphs
    engine.
    """
    _need_gpu()
    from pace import Setup

    seconds: dict[str, float] = {}

    def measure() -> None:
        for name, steps, windows in TRAINING_LOOPS:
            setup = Setup(
                "imdb_roberta",
                method,
                [*IMDB, *(["budget.precision=fp32"] if name == "notebook" else [])],
                "cuda",
            )
            loops = {
                "notebook": setup.by_notebook,
                "tuned": setup.by_tuned_trainer,
                "tuned, no cuDNN": lambda *arguments, setup=setup: setup.by_tuned_trainer(
                    *arguments, cudnn=False
                ),
            }
            loop = loops.get(
                name, lambda *arguments, name=name, setup=setup: setup.by_engine(name, *arguments)
            )
            seconds[name] = _per_thousand(
                loop(tmp_path, steps, windows), steps * setup.recipe.budget.batch_size
            )

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info["seconds_per_thousand_rows"] = seconds
    ratios = {name: value / seconds["cuda_graphs"] for name, value in seconds.items()}
    print(
        f"{method}: "
        + ", ".join(
            f"{name} {value:.3f} s ({ratios[name]:.1f}x)" for name, value in seconds.items()
        )
    )


@pytest.mark.harness
@pytest.mark.gpu
def test_share_of_the_device_rate(benchmark: Any, tmp_path: Path) -> None:
    """Measure the share of the device's bf16 matmul rate that full fine-tuning reaches.

    Batches have 64 rows of 256 tokens. The rate is measured before and after.
    """
    _need_gpu()
    from pace import Setup

    from peft_methods.models.flops import training_flops
    from peft_methods.profiling.matmul_rate import matmul_flops_per_second

    setup = Setup("imdb_roberta", "full", [*IMDB, *FIXED], "cuda")
    rates = [matmul_flops_per_second()]
    seconds = benchmark.pedantic(setup.by_engine, args=("cuda_graphs", tmp_path, 20, 5), rounds=1)
    rates.append(matmul_flops_per_second())
    step = statistics.median(seconds) / 20
    share = (
        training_flops(
            setup.base.architecture, [256] * 64, setup.method.info.cost_in_forward_passes
        )
        / step
        / statistics.mean(rates)
    )
    benchmark.extra_info.update(step_seconds=step, share=share, matmul_flops_per_second=rates)
    print(
        f"full, 64 x 256: {1000 * step:.1f} ms a step, "
        f"{share:.1%} of {statistics.mean(rates) / 1e12:.0f} TFLOP/s"
    )


KINDS_OF_KERNELS = {  # the first pattern that matches counts
    "attention": "flash|fmha",
    "matrix products": "gemm|cutlass|xmma|nvjet|cublas",
    "fused by the compiler": "triton",
    "clipping and AdamW": "multi_tensor|adam",
    "copies": "memcpy|memset",
}


@pytest.mark.harness
@pytest.mark.gpu
@pytest.mark.parametrize(("rows", "steps"), [("64 x 256", 10), ("16 reviews", 47)])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_where_a_step_goes(
    method: str, rows: str, steps: int, benchmark: Any, tmp_path: Path
) -> None:
    """Measure milliseconds per step of the cuda_graphs engine by kind of kernel.

    The slowest kernels are listed too.
    """
    _need_gpu()
    from pace import Setup

    setup = Setup("imdb_roberta", method, [*IMDB, *(FIXED if rows == "64 x 256" else [])], "cuda")
    found = benchmark.pedantic(setup.kernels, args=("cuda_graphs", tmp_path, steps), rounds=1)
    kinds: dict[str, float] = {}
    for name, spent in found.items():
        kind = next(
            (
                kind
                for kind, pattern in KINDS_OF_KERNELS.items()
                if re.search(pattern, name, re.IGNORECASE)
            ),
            "other",
        )
        kinds[kind] = kinds.get(kind, 0.0) + spent
    benchmark.extra_info.update(
        milliseconds_by_kind=kinds, milliseconds_by_kernel=dict(itertools.islice(found.items(), 40))
    )
    print(
        f"{method}, {rows}: {sum(found.values()):.1f} ms a step: "
        + ", ".join(f"{kind} {spent:.1f}" for kind, spent in kinds.items())
    )
    for name, spent in itertools.islice(found.items(), 12):
        print(f"  {spent:6.2f} ms {name[:120]}")


@pytest.mark.harness
@pytest.mark.gpu
def test_time_between_runs(benchmark: Any, tmp_path: Path) -> None:
    """Measure the seconds from a run's last training step to the next run's first.

    2,000 rows are evaluated in between. The first run fills the caches and is left out.
    """
    _need_gpu()
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

    Full fine-tuning, LoRA, QLoRA and IA3 train 5 epochs of 3,000 reviews and evaluate 2,000.
    """
    _need_gpu()
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
        f"import sys; sys.path.insert(0, {benchmarks!r}); import test_harness; "
        f"test_harness._notebook_job([], {str(tmp_path)!r})"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    seconds: dict[str, float] = {}
    details: dict[str, str] = {}

    def measure() -> None:
        for name, command in (
            ("cold", ours),
            ("warm", ours),
            ("notebook", [sys.executable, "-c", script]),
        ):
            started = time.time()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            seconds[name] = time.time() - started
            details[name] = (
                f"{_gaps(tmp_path, started)}; {_captures(tmp_path)}" if command is ours else ""
            )
            print(f"{name}: {seconds[name]:.1f} s {details[name]}", flush=True)

    benchmark.pedantic(measure, rounds=1)
    ratio = seconds["notebook"] / seconds["warm"]
    benchmark.extra_info.update(job_seconds=seconds, runs=details)
    print(
        f"whole job: notebook {seconds['notebook']:.0f} s, ours {seconds['warm']:.0f} s "
        f"({ratio:.1f}x), cold {seconds['cold']:.0f} s"
    )


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


def _our_pace(method: str, folder: str, barrier: Any, results: Any) -> None:
    import torch
    from pace import Setup

    from peft_methods.runs.executors.worker import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    setup = Setup("embedded", method, EMBEDDED, "cpu")
    barrier.wait()
    results.put(
        _per_thousand(
            setup.by_engine("trainer", Path(folder), 10, 4), 10 * setup.recipe.budget.batch_size
        )
    )


def _plain_pace(method: str, folder: str, results: Any) -> None:
    import torch
    from pace import Setup

    torch.set_num_threads(2)
    setup = Setup("embedded", method, EMBEDDED, "cpu")
    results.put(
        _per_thousand(
            setup.by_tuned_trainer(Path(folder), 10, 4), 10 * setup.recipe.budget.batch_size
        )
    )


@pytest.mark.harness
@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_cores_against_a_plain_trainer(method: str, benchmark: Any, tmp_path: Path) -> None:
    """Compare two parallel runs, one per core, with a plain Trainer on both cores.

    Uses the recipe `embedded`, three rounds each.
    """
    context = multiprocessing.get_context("spawn")
    ours: list[float] = []
    plain: list[float] = []

    def one_round() -> None:
        results, barrier = context.Queue(), context.Barrier(2)
        pair = [
            context.Process(target=_our_pace, args=(method, str(tmp_path), barrier, results))
            for _ in range(2)
        ]
        ours.append(statistics.mean(_finished(pair, results)) / 2)
        plain.extend(
            _finished(
                [context.Process(target=_plain_pace, args=(method, str(tmp_path), results))],
                results,
            )
        )

    benchmark.pedantic(one_round, rounds=3)
    ratio = statistics.median(plain) / statistics.median(ours)
    benchmark.extra_info.update(plain=plain, ours=ours, ratio=ratio)
    print(
        f"{method}: plain Trainer {statistics.median(plain):.1f} s per 1,000 rows, "
        f"ours {statistics.median(ours):.1f} s: {ratio:.2f}x"
    )


def _finished(processes: list[Any], results: Any) -> list[float]:
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return found


@pytest.mark.harness
@pytest.mark.gpu
def test_measuring_costs_at_most_one_percent(benchmark: Any, tmp_path: Path) -> None:
    """Compare pairs of epochs of one run, with the profiler and without.

    The upper 95 % bound of the difference is at most 1 % of the training time.
    """
    _need_gpu()
    import numpy as np
    import torch
    from pace import EveryOtherEpoch, Setup
    from scipy import stats

    from peft_methods.profiling.profiler import Profiler
    from peft_methods.training.registry import engine_of

    epochs = 2 * MEASURING_PAIRS + 1  # the first is a warm-up
    same = [
        "data.train=1500",
        "budget.padding=fixed",
        "data.max_length=256",
        "data.token_lengths=[256,256]",
        f"budget.epochs={epochs}",
    ]
    setup = Setup("imdb_roberta", "lora", [*IMDB, *same], "cuda")
    observer = EveryOtherEpoch(
        Profiler("cuda", lambda message: None, epochs), torch.cuda.synchronize
    )
    job, engine = setup.job(tmp_path), engine_of("cuda_graphs")

    def train() -> None:
        engine.train(job, observer)

    benchmark.pedantic(train, rounds=1)
    kinds = {
        on: [s for epoch, s in enumerate(observer.seconds) if epoch and observer.is_on(epoch) is on]
        for on in (True, False)
    }
    difference = np.subtract(kinds[True], kinds[False]) / np.mean(kinds[False])
    bound = difference.mean() + stats.t.ppf(0.95, len(difference) - 1) * stats.sem(difference)
    benchmark.extra_info.update(
        with_seconds=kinds[True], without_seconds=kinds[False], upper_bound=bound
    )
    print(
        f"profiler: {100 * difference.mean():+.2f} % of training time, "
        f"at most {100 * bound:.2f} % (95 %), {len(difference)} pairs"
    )
    assert bound <= 0.01


@pytest.mark.harness
def test_report_of_ten_thousand_records(benchmark: Any, tmp_path: Path) -> None:
    """Measure seconds from process start to report.html, in three rounds.

    The records cover 25 recipes, eight methods and 50 seeds, with 500 test rows each.
    """
    from bulk import fill

    assert fill(tmp_path / "results", recipes=25, seeds=50) == 10_000
    command = [
        sys.executable,
        "-m",
        "peft_methods",
        "report",
        str(tmp_path / "results"),
        "-o",
        str(tmp_path / "out"),
    ]
    benchmark.pedantic(subprocess.run, args=(command,), kwargs={"check": True}, rounds=3)
    median, size = benchmark.stats.stats.median, (tmp_path / "out" / "report.html").stat().st_size
    benchmark.extra_info.update(records=10_000, report_bytes=size)
    print(
        f"report: 10,000 records in {median:.1f} s (median of three), {size / 1e6:.1f} MB of HTML"
    )
