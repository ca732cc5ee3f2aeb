"""A clock that jumps by hours and days while a run goes on: no duration shows it, and nothing is taken for older than it is."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.ground import Ground
from peft_methods.records import Record

pytestmark = pytest.mark.faults
KIND = "a clock that jumps"
HOUR = 3600
JUMPING = """
import random, time
_real, _rng = time.time, random.Random(7)
time.time = lambda: _real() + _rng.uniform(-50, 50) * 3600
"""


def durations(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.metrics.items() if name.endswith("_seconds") and value is not None}


def no_duration_jumped(here: Ground) -> None:
    for record in here.store.records()[0]:
        assert all(0 <= value < HOUR for value in durations(record).values()), durations(record)


def test_pythons_clock_jumps_at_every_look(ground: Callable[..., Ground], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(JUMPING, encoding="utf-8")
    here = ground(seeds=3)
    run = here.start("--peft-timeout=10min", seeds="2", PYTHONPATH=str(tmp_path))
    assert run.end() == 0, run.text
    here.count(KIND, here.finished())
    here.complete(KIND, PYTHONPATH=str(tmp_path))
    ended = [record.finished for record in here.store.records()[0]]
    assert max(ended) - min(ended) > HOUR, "the clock did not jump"
    no_duration_jumped(here)


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_the_systems_clock_jumps_amid_a_run(ground: Callable[..., Ground], tmp_path: Path) -> None:
    """As every library sees it, back and forth; the monotonic clock goes on, as the kernel's does."""
    clock = tmp_path / "clock"
    clock.write_text("+0", encoding="utf-8")
    settings = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    here = ground(seeds=3)
    run = here.start("--peft-timeout=10min", before=["faketime", "--exclude-monotonic", "-f", "+0"], **settings)
    jumps = ("-3d", "+2d", "-1h", "+9h")
    for number, jump in enumerate(jumps):
        run.until(lambda run=run, number=number: run.text.count(": accuracy") >= 2 * number)
        clock.write_text(jump, encoding="utf-8")
        time.sleep(0.1)
    before = here.finished()
    assert run.end() == 0, run.text
    here.count(KIND, before, faults=len(jumps))
    no_duration_jumped(here)
    here.complete(KIND)
