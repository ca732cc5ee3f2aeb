"""Resident memory on a CPU: what counts to it, and that of a forked run."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders import small_runs
from peft_methods.profiling import memory
from peft_methods.profiling.memory import LibraryPages, ResidentMemory
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.store import Store

MIB = 2**20
# Trains two runs in one process and prints their peaks. For the second all libraries are warm.
WARM = """
import json, sys, tempfile
from pathlib import Path
import peft_methods.runs.executors.warm_imports
from builders import small_runs
from peft_methods.runs import pipeline, run_paths
from peft_methods.runs.executors.worker import keep_freed_memory

keep_freed_memory()
(run,) = small_runs(Path(sys.argv[1]), sys.argv[2])
peaks = []
for _ in range(2):
    paths = run_paths.RunPaths(Path(tempfile.mkdtemp(dir=sys.argv[3])))
    record, _ = pipeline.execute(run, paths, lambda news: None, threads=1)
    peaks.append(record.metrics["peak_memory_bytes"])
Path(sys.argv[3], "peaks.json").write_text(json.dumps(peaks))
"""

resettable = pytest.mark.skipif(
    not ResidentMemory().can_reset, reason="needs a resident set whose peak can be reset"
)


# Maps a file of 40 MiB, reads every page of it and prints how much each figure grew.
MAPPED = """
import json, mmap, sys
from peft_methods.profiling.memory import LibraryPages, ResidentMemory

measured = ResidentMemory()
before, libraries = measured.level(), LibraryPages().resident_bytes()
measured.reset()
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=int(sys.argv[2]))
assert sum(mapped[:: mmap.PAGESIZE]) == 0
grown = measured.level() - before, measured.peak() - before
print(json.dumps([*grown, LibraryPages().resident_bytes() - libraries]))
"""


@resettable
@pytest.mark.parametrize(
    ("protection", "counted"),
    [(mmap.PROT_READ, True), (mmap.PROT_READ | mmap.PROT_EXEC, False)],
    ids=["weights", "library"],
)
def test_mapped_weights_count_and_libraries_do_not(
    protection: int, counted: bool, tmp_path: Path
) -> None:
    """A process of its own: the test's process can lose other pages in the meantime."""
    path = tmp_path / "mapped"
    path.write_bytes(bytes(40 * MIB))
    printed = subprocess.run(
        [sys.executable, "-c", MAPPED, str(path), str(int(protection))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    ).stdout
    level, peak, of_libraries = json.loads(printed)
    expected = 40 * MIB if counted else 0
    assert (level, peak) == pytest.approx((expected, expected), abs=4 * MIB)
    assert of_libraries == pytest.approx(40 * MIB - expected, abs=4 * MIB)


def test_without_proc_no_library_is_subtracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert LibraryPages().resident_bytes() == 0


@resettable
@pytest.mark.slow
@pytest.mark.parametrize("name", ["head_only", "lora"])
def test_forked_run_has_the_peak_of_a_process_with_warm_libraries(
    name: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    """Before, 50 MiB of libraries that it used first counted to the peak of a forked run."""
    (run,) = small_runs(tiny_recipe, name)
    store = Store(tmp_path / "results")
    store.prepare()
    scheduler = new_scheduler(store, "cpu", workers=1)
    scheduler.submit([run])
    (forked,) = scheduler.wait([run])
    scheduler.close()
    assert forked.status == "ok", forked.message
    subprocess.run(
        [sys.executable, "-c", WARM, str(tiny_recipe), name, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
        timeout=240,
    )
    _, warm = json.loads((tmp_path / "peaks.json").read_text(encoding="utf-8"))
    assert forked.metrics["peak_memory_bytes"] == pytest.approx(warm, abs=10 * MIB)
