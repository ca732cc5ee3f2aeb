"""Runs out of memory, and runs and data that hang.

One row reports it, the others are kept, and the next session trains the rest.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from faults.ground import Ground, Run

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"),
        reason="only Linux can set the limits of another process",
    ),
]
TIMEOUT = "--peft-timeout=20s"


def training_process(run: Run, known: set[int]) -> psutil.Process | None:
    """Return the process of a run that trains (its log is open) and is not in `known`."""
    for process in run.children():
        try:
            if process.pid not in known and os.readlink(f"/proc/{process.pid}/fd/1").endswith(
                ".log"
            ):
                return process
        except OSError:
            pass
    return None


@pytest.mark.parametrize("room", [0, 2**20, 2**23])
def test_runs_out_of_memory_lose_no_other_result(ground: Callable[..., Ground], room: int) -> None:
    """The address space of training runs is limited to little more than they use."""
    rng, limited = random.Random(room), set[int]()
    here = ground(seeds=3, options=["--peft-retries=0"])
    run = here.start()

    def limit() -> bool:
        process = training_process(run, limited)
        if process is not None and "started" in run.text and rng.random() < 0.5:
            try:
                size = process.memory_info().vms + room
                resource.prlimit(process.pid, resource.RLIMIT_AS, (size, size))
                limited.add(process.pid)
            except (OSError, psutil.Error):
                pass
        return len(limited) >= 4

    run.until(limit)
    before = here.finished()
    assert run.end() in {0, 1}, run.text  # 0: these runs had enough memory
    assert "INTERNALERROR" not in run.text
    here.count("out of memory", before, faults=len(limited))
    here.complete("out of memory")


def test_hanging_runs_end_by_timeout(ground: Callable[..., Ground]) -> None:
    here = ground(seeds=3, options=[TIMEOUT])
    run, stopped = here.start(), set[int]()

    def stop() -> bool:
        process = training_process(run, stopped) if run.text.count(": accuracy") >= 2 else None
        if process is not None:
            process.send_signal(signal.SIGSTOP)
            stopped.add(process.pid)
        return len(stopped) >= 2

    assert run.until(stop)
    before = here.finished()
    assert run.end() == 1, run.text
    assert "timeout: it took more than 20 s (setting `timeout`)" in run.text
    assert "Traceback" not in run.text
    here.count("a run that hangs", before, faults=2)
    here.complete("a run that hangs")


def test_run_stopped_for_a_while_continues(ground: Callable[..., Ground]) -> None:
    here = ground(seeds=2)
    run = here.start()
    assert run.until(lambda: "started" in run.text and training_process(run, set()))
    process = training_process(run, set())
    before = here.finished()
    if process is not None:
        process.send_signal(signal.SIGSTOP)
        run.parent.send_signal(signal.SIGSTOP)
        run.parent.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGCONT)
    assert run.end() == 0, run.text
    here.count("a run stopped and continued", before)
    here.complete("a run stopped and continued")


def test_data_that_never_arrives_ends_by_timeout(
    ground: Callable[..., Ground], tmp_path: Path
) -> None:
    here = ground(seeds=2)
    here.complete("data that never arrives")
    data = tmp_path / "pipe"
    data.mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        os.mkfifo(data / name)
    before = here.finished()
    run = here.start("--peft-timeout=2s", f"--peft-data={data}")
    assert run.end() == 1, run.text
    assert "could not be prepared: it took more than 2 s" in run.text
    assert "Traceback" not in run.text
    here.count("data that never arrives", before)
    here.complete("data that never arrives")
