"""Benchmarks of how much of a job's wall time is training. Run `pytest benchmarks -m harness`."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import need_gpu

# Warnings of the compiler and the allocator do not matter: these tests measure time.
pytestmark = [pytest.mark.harness, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parent.parent
ROUNDS = int(os.environ.get("PEFT_HARNESS_ROUNDS", "3"))
FIRST_VERSION = "7c7e0fd"  # the bundled job is compared with this commit
# Further options of the job, such as --peft-method=lora, or --peft-model and --peft-data with local
# folders.
OPTIONS = shlex.split(os.environ.get("PEFT_HARNESS_OPTIONS", ""))


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", ["imdb_mpnet", "embedded"])
def test_share_of_training_on_a_gpu(recipe: str, benchmark: Any, tmp_path: Path) -> None:
    """Measure a recipe from process start to table, with processes that are reused and fresh ones.

    A first job fills the caches. Prints the share of the wall time that is training, and the phases
    of every run.
    """
    need_gpu()
    print(
        report(tmp_path / "first", run_job(recipe, "warm", tmp_path / "first")[0], "caches empty")
    )
    found: dict[str, list[float]] = {"warm": [], "fresh": []}

    def measure() -> None:
        for number in range(ROUNDS):
            for isolation, seconds in found.items():
                results = tmp_path / f"{isolation}{number}"
                seconds.append(run_job(recipe, isolation, results)[0])
                print(report(results, seconds[-1], isolation), flush=True)

    benchmark.pedantic(measure, rounds=1)
    medians = {isolation: statistics.median(seconds) for isolation, seconds in found.items()}
    benchmark.extra_info.update(seconds=found)
    print(
        f"{recipe}, medians of {ROUNDS}: {medians['warm']:.1f} s warm, {medians['fresh']:.1f} fresh"
    )


def test_bundled_job_against_the_first_version(benchmark: Any, tmp_path: Path) -> None:
    """Measure the bundled job on a CPU beside that of the first version, one after the other.

    CPU seconds depend less on what else the machine does than the wall time.
    """
    first = tmp_path / "first_version"
    subprocess.run(
        ["git", "worktree", "add", "--detach", str(first), FIRST_VERSION], cwd=ROOT, check=True
    )
    found: dict[str, list[tuple[float, float]]] = {"now": [], "first version": []}

    def measure() -> None:
        for number in range(ROUNDS):
            for name, folder in (("first version", first), ("now", ROOT)):
                results = tmp_path / f"{folder.name}{number}"
                found[name].append(run_job("embedded", None, results, folder))
                print(f"{name}: {found[name][-1][0]:.1f} s, {found[name][-1][1]:.1f} CPU s")
            print(report(results, found["now"][-1][0], "warm"), flush=True)

    try:
        benchmark.pedantic(measure, rounds=1)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(first)], cwd=ROOT, check=False)
    wall, cpu = (
        [statistics.median(one[place] for one in found[name]) for name in found] for place in (0, 1)
    )
    benchmark.extra_info.update(seconds=found)
    print(
        f"bundled job: {wall[0]:.1f} s now, {wall[1]:.1f} s in the first version "
        f"({wall[0] / wall[1]:.2f}); {cpu[0]:.1f} and {cpu[1]:.1f} CPU s ({cpu[0] / cpu[1]:.2f})"
    )


def run_job(
    recipe: str, isolation: str | None, results: Path, folder: Path = ROOT
) -> tuple[float, float]:
    """Train all of a recipe; return the wall time and the CPU time, in seconds."""
    command = [sys.executable, "-m", "pytest", "benchmarks/test_finetune.py", "-q"]
    command += ["-p", "no:cacheprovider", "-o", "addopts=", f"--peft-recipe={recipe}", *OPTIONS]
    command += ["--peft-fresh", f"--peft-results={results}"]
    command += [] if isolation is None else [f"--peft-isolation={isolation}"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)  # with the processes that it has waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in {0, 1}, "a failed gate is no matter here"
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


def report(results: Path, seconds: float, isolation: str) -> str:
    """Describe a job: the share of training, what runs have left behind, and each run's phases."""
    from peft_methods.profiling.phases import PHASES
    from peft_methods.runs.isolation.marks import isolation_of
    from peft_methods.runs.store import Store

    records = sorted(Store(results).records()[0], key=lambda record: record.finished)
    trained = sum(record.metrics.get("train_seconds") or 0.0 for record in records)
    at_a_time = max(record.environment.get("runs_at_a_time", 1) for record in records)
    share = trained / at_a_time / seconds
    names = [name for name in PHASES if any(_seconds(one.metrics, name) for one in records)]
    lines = [
        f"{isolation}: {seconds:.1f} s, training {trained / at_a_time:.1f} s ({share:.0%}), "
        f"{len(records)} runs",
        _line("run", "before", names),
    ]
    for record in records:
        isolated = isolation_of(record)
        spent = [f"{_seconds(record.metrics, name):.2f}" for name in names]
        left = "; ".join(isolated.get("left_behind", ()))
        lines.append(
            _line(record.spec.label, str(isolated.get("runs_before")), spent) + f"  {left}"
        )
    return "\n".join(lines)


def _seconds(metrics: Mapping[str, float | None], phase: str) -> float:
    return metrics.get(f"{phase}_seconds") or 0.0


def _line(run: str, before: str, cells: Sequence[str]) -> str:
    return f"{run[:34]:34} {before:>6} " + " ".join(f"{cell:>9}" for cell in cells)
