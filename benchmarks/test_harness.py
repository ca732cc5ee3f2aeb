"""Benchmarks of the harness: its overhead and its speed-up. Run `pytest benchmarks -m harness`."""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
from pathlib import Path
from typing import Any

import pytest

from harness import IMDB, need_gpu, print_kernels

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
    need_gpu()
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
    need_gpu()
    from pace import Setup
    from peft_methods.profiling.flops import count_training_flops
    from peft_methods.profiling.matmul_rate import matmul_flops_per_second

    setup = Setup("imdb_roberta", "full", [*IMDB, *FIXED], "cuda")
    rates = [matmul_flops_per_second()]
    seconds = benchmark.pedantic(setup.by_engine, args=("cuda_graphs", tmp_path, 20, 5), rounds=1)
    rates.append(matmul_flops_per_second())
    step = statistics.median(seconds) / 20
    flops = count_training_flops(setup.job(tmp_path)).of([256] * 64, steps=1)
    share = flops / step / statistics.mean(rates)
    benchmark.extra_info.update(step_seconds=step, share=share, matmul_flops_per_second=rates)
    print(
        f"full, 64 x 256: {1000 * step:.1f} ms a step, "
        f"{share:.1%} of {statistics.mean(rates) / 1e12:.0f} TFLOP/s"
    )


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
    need_gpu()
    from pace import Setup

    setup = Setup("imdb_roberta", method, [*IMDB, *(FIXED if rows == "64 x 256" else [])], "cuda")
    found = benchmark.pedantic(setup.kernels, args=("cuda_graphs", tmp_path, steps), rounds=1)
    kinds = print_kernels(f"{method}, {rows}", found)
    benchmark.extra_info.update(
        milliseconds_by_kind=kinds, milliseconds_by_kernel=dict(itertools.islice(found.items(), 40))
    )


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
    need_gpu()
    import numpy as np
    import torch
    from scipy import stats

    from observers import EveryOtherEpoch
    from pace import Setup
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
