"""A clock that jumps by hours and days during a session.

No duration may show it, and no file may be taken for older than it is.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.ground import Ground
from peft_methods.runs.record import Record

pytestmark = pytest.mark.faults
KIND = "a clock that jumps"
HOUR = 3600
SHIFT_CLOCK = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static const long zero, *offset = &zero;
__attribute__((constructor)) static void map(void) {
    int file = open(getenv("OFFSET"), O_RDONLY);
    void *found = mmap(0, sizeof zero, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) offset = found;
    close(file);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec += *offset;
    return result;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec; now->tv_usec = exact.tv_nsec / 1000;
    return result;
}
time_t time(time_t *there) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (there) *there = exact.tv_sec;
    return exact.tv_sec;
}
"""
JUMPING = """
import random, time
_real, _rng = time.time, random.Random(7)
time.time = lambda: _real() + _rng.uniform(-50, 50) * 3600
"""


def durations(record: Record) -> dict[str, float]:
    return {
        name: value
        for name, value in record.metrics.items()
        if name.endswith("_seconds") and value is not None
    }


def check_durations(here: Ground) -> None:
    for record in here.store.records()[0]:
        assert all(0 <= value < HOUR for value in durations(record).values()), durations(record)


def test_session_survives_jumps_of_pythons_clock(
    ground: Callable[..., Ground], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(JUMPING, encoding="utf-8")
    here = ground(seeds=3)
    run = here.start("--peft-timeout=10min", seeds="2", PYTHONPATH=str(tmp_path))
    assert run.end() == 0, run.text
    here.count(KIND, here.finished())
    here.complete(KIND, PYTHONPATH=str(tmp_path))
    ended = [record.finished for record in here.store.records()[0]]
    assert max(ended) - min(ended) > HOUR, "the clock did not jump"
    check_durations(here)


@pytest.fixture
def clock(tmp_path: Path) -> tuple[Path, Path]:
    """A library that shifts the clock of its process by the seconds stored in a file, now 0."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("shifting the clock for all libraries needs Linux and a C compiler")
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    offset.write_bytes(struct.pack("q", 0))
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), "-x", "c", "-"],
        input=SHIFT_CLOCK,
        check=True,
        text=True,
    )
    return library, offset


def test_session_survives_jumps_of_the_system_clock(
    ground: Callable[..., Ground], clock: tuple[Path, Path]
) -> None:
    """The clock jumps back and forth for every library.

    The monotonic clock continues, as the kernel's does.
    """
    library, offset = clock
    here = ground(seeds=4)
    run = here.start("--peft-timeout=10min", LD_PRELOAD=str(library), OFFSET=str(offset))
    jumps = (-72, 48, -1, 9)
    for number, hours in enumerate(jumps):
        run.until(
            lambda number=number: (
                "started" in run.text and run.text.count(": accuracy") >= 2 * number
            )
        )
        # In place: a process that reads the mapping while the file is empty would be killed.
        with offset.open("r+b") as file:
            file.write(struct.pack("q", hours * HOUR))
    before = here.finished()
    assert run.end() == 0, run.text
    here.count(KIND, before, faults=len(jumps))
    ended = [record.finished for record in here.store.records()[0]]
    assert max(ended) - min(ended) > HOUR, "the clock did not jump"
    check_durations(here)
    here.complete(KIND)
