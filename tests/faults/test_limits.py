"""Memory that runs out in a cell, cells and data that hang: one row says so, the others are kept, the next run trains the rest."""

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
        reason="another process's limits can be set on Linux alone",
    ),
]
TIMEOUT = "--peft-timeout=20s"
FAILED = r"(?:oom|failed|crashed|timeout): "


def cell_of(run: Run, known: set[int]) -> psutil.Process | None:
    """A cell's process that trains (its log is open), not struck before."""
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
def test_memory_that_runs_out_in_cells(ground: Callable[..., Ground], room: int) -> None:
    """The address space of cells that have begun is limited to little more than they have."""
    rng, struck = random.Random(room), set[int]()
    here = ground(seeds=3, options=["--peft-retries=0"])
    run = here.start()

    def limit() -> bool:
        process = cell_of(run, struck)
        if process is not None and "started" in run.text and rng.random() < 0.5:
            try:
                size = process.memory_info().vms + room
                resource.prlimit(process.pid, resource.RLIMIT_AS, (size, size))
                struck.add(process.pid)
            except (OSError, psutil.Error):
                pass
        return len(struck) >= 4

    run.until(limit)
    before = here.finished()
    assert run.end() in {0, 1}, run.text  # 0: those had all they needed
    assert "INTERNALERROR" not in run.text
    here.count("out of memory", before, faults=len(struck))
    here.complete("out of memory")


def test_cells_that_hang(ground: Callable[..., Ground]) -> None:
    here = ground(seeds=3, options=[TIMEOUT])
    run, stopped = here.start(), set[int]()

    def stop() -> bool:
        process = cell_of(run, stopped) if run.text.count(": accuracy") >= 2 else None
        if process is not None:
            process.send_signal(signal.SIGSTOP)
            stopped.add(process.pid)
        return len(stopped) >= 2

    assert run.until(stop)
    before = here.finished()
    assert run.end() == 1, run.text
    assert "timeout: it took more than 20 s (--peft-timeout)" in run.text
    assert "Traceback" not in run.text
    here.count("a cell that hangs", before, faults=2)
    here.complete("a cell that hangs")


def test_a_cell_stopped_for_a_while_goes_on(ground: Callable[..., Ground]) -> None:
    here = ground(seeds=2)
    run = here.start()
    assert run.until(lambda: "started" in run.text and cell_of(run, set()))
    process = cell_of(run, set())
    before = here.finished()
    if process is not None:
        process.send_signal(signal.SIGSTOP)
        run.parent.send_signal(signal.SIGSTOP)
        run.parent.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGCONT)
    assert run.end() == 0, run.text
    here.count("a run stopped and continued", before)
    here.complete("a run stopped and continued")


def test_data_that_never_comes(ground: Callable[..., Ground], tmp_path: Path) -> None:
    here = ground(seeds=2)
    here.complete("data that never comes")
    data = tmp_path / "pipe"
    data.mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        os.mkfifo(data / name)
    before = here.finished()
    run = here.start("--peft-timeout=2s", f"--peft-data={data}")
    assert run.end() == 1, run.text
    assert "could not be prepared: it took more than 2 s" in run.text
    assert "Traceback" not in run.text
    here.count("data that never comes", before)
    here.complete("data that never comes")
