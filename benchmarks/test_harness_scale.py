"""Benchmarks of the report and the scheduler at scale. Run `pytest benchmarks -m harness`."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import CpuSamples, resident_bytes

# Warnings do not matter: these tests measure time.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.harness
@pytest.mark.parametrize(
    ("records", "recipes", "models", "rounds"), [(10_000, 25, 1, 3), (100_000, 50, 5, 1)]
)
def test_report_of_many_records(
    records: int, recipes: int, models: int, rounds: int, benchmark: Any, tmp_path: Path
) -> None:
    """Measure seconds from process start to report.html, and the memory of the process.

    The records cover eight methods and 50 seeds, with 500 test rows each. No run was verified
    before: every round starts with an empty cache.
    """
    from bulk import fill

    assert fill(tmp_path / "results", recipes=recipes, seeds=50, models=models) == records
    command = [sys.executable, "-m", "peft_methods", "report", str(tmp_path / "results")]
    command += ["-o", str(tmp_path / "out")]
    caches = (tmp_path / f"cache{number}" for number in itertools.count())
    peaks: list[int] = []

    def report() -> None:
        environment = {**os.environ, "XDG_CACHE_HOME": str(next(caches))}
        process = subprocess.Popen(command, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(1024 * usage.ru_maxrss)

    benchmark.pedantic(report, rounds=rounds)
    median, size = benchmark.stats.stats.median, (tmp_path / "out" / "report.html").stat().st_size
    benchmark.extra_info.update(records=records, report_bytes=size, peak_bytes=peaks)
    print(
        f"report: {records:,} records in {median:.1f} s (median of {rounds}), "
        f"{max(peaks) / 1e9:.2f} GB of memory, {size / 1e6:.1f} MB of HTML"
    )


@pytest.mark.harness
@pytest.mark.parametrize(("runs", "gpus"), [(10_000, 1_000), (100_000, 1_000)])
def test_scheduler_of_many_runs(runs: int, gpus: int, benchmark: Any, tmp_path: Path) -> None:
    """Measure the driver's CPU time for each simulated run, keys and progress lines included.

    Some runs fail in every way, one in ten has a prerequisite, and some need 2 or 8 GPUs. The time
    of the simulated executor is measured apart, from samples. The simulated runs leave no files.
    """
    from simulated_session import SimulatedSession

    sessions: list[SimulatedSession] = []
    whole: list[float] = []
    shares: list[float] = []
    memory: list[float] = []

    def new_session() -> None:
        sessions[:] = [SimulatedSession(runs, gpus, tmp_path / str(len(whole)))]

    def drive() -> None:
        before, resident = time.process_time(), resident_bytes()
        with CpuSamples("simulated_runs.py") as samples:
            sessions[0].drive()
        whole.append(1000 * (time.process_time() - before) / runs)
        shares.append(samples.share)
        memory.append((resident_bytes() - resident) / runs)

    benchmark.pedantic(drive, setup=new_session, rounds=3)
    own = [each * (1 - share) for each, share in zip(whole, shares, strict=True)]
    benchmark.extra_info.update(driver_milliseconds=own, milliseconds=whole, bytes_of_a_run=memory)
    benchmark.extra_info["statuses"] = dict(sessions[0].statuses)
    print(
        f"scheduler: {runs:,} runs on {gpus:,} GPUs, {statistics.median(own):.3f} ms of CPU time a "
        f"run ({min(own):.3f} to {max(own):.3f}), {statistics.median(whole):.3f} with the "
        f"simulated executor, {memory[0] / 1000:.1f} kB of memory a run"
    )
