"""Real out-of-memory errors by phase, in a process with a limited address space."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from builders import CONFIGS

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs Linux to limit the address space"
)

SCRIPT = """
import json, multiprocessing, resource, sys
from pathlib import Path
from peft_methods.runs.spec import run_specs
from peft_methods.methods.selection import chosen_methods
from peft_methods.runs.executors import worker
from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.jobs import RunJob
from peft_methods.recipes.loading import load_recipe

def train(settings, room):
    recipe = load_recipe(sys.argv[1], settings, weights="random")
    (run,) = run_specs(recipe, chosen_methods(recipe, ["full"])[0], "cpu")
    work = Path(sys.argv[2]) / run.key
    job = RunJob(run, work, (), None, None, Path(sys.argv[2]), work / "log", Resources(0, 1))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = pages * resource.getpagesize() + room if room else hard
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    record = worker._train(job, multiprocessing.Pipe()[0], None, None).result
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return record.status, record.message

print(json.dumps([train(*run) for run in json.loads(sys.argv[3])]))
"""
ROOM = 100 * 2**20
ROWS = ("data.train=8", "data.validation=8", "data.test=8")


@pytest.fixture
def recipe(tmp_path: Path, tiny_recipe: Path) -> Path:
    """A recipe with random weights and texts, so that a test may choose all sizes."""
    CONFIGS["bert"]().save_pretrained(tmp_path / "small")
    wide = CONFIGS["bert"]()
    wide.intermediate_size = 2**20  # 256 MiB a layer
    wide.save_pretrained(tmp_path / "wide")
    text = tiny_recipe.read_text(encoding="utf-8").replace("max_length = 16", "max_length = 64")
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.slow
def test_out_of_memory_records_name_phase_and_advice(recipe: Path, tmp_path: Path) -> None:
    small, wide = (f'model.source="{tmp_path / name}"' for name in ("small", "wide"))
    common = ["budget.seeds=1", "budget.epochs=1", 'data.source="some/texts"']
    runs: list[tuple[list[str], int]] = [
        ([*common, *ROWS, small], 0),
        ([*common, *ROWS, wide], ROOM),
        ([*common, *ROWS, small, "data.train=4000", "budget.batch_size=4000"], ROOM),
        (
            [*common, *ROWS, small, "data.validation=8000", "budget.evaluation_batch_size=8000"],
            ROOM,
        ),
        ([*common, *ROWS, small], ROOM),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(recipe), str(tmp_path / "results"), json.dumps(runs)],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    before, load, train, evaluate, after = json.loads(done.stdout.splitlines()[-1])
    assert before == after == ["ok", ""]
    for (status, message), activity, advice in (
        (load, "loading the model", "use the method qlora, or a smaller model"),
        (train, "training", "half the batch (set budget.batch_size = N"),
        (evaluate, "evaluating", "set budget.evaluation_batch_size = 8"),
    ):
        assert status == "oom"
        assert f"out of memory while {activity}" in message
        assert "tried to allocate" in message
        assert advice in message
        assert "\n" not in message
    assert len(list((tmp_path / "results").glob("*-oom-*.json"))) == 3


SCARCE_MEMORY = """
import resource, sys
from peft_methods.utils.errors import OutOfMemory
from peft_methods.profiling.profiler import Profiler
from peft_methods.profiling.memory import address_space_left

assert address_space_left() is None
profiler = Profiler("cpu", lambda message: None, epochs=1)
with profiler.running():
    profiler.enter(sys.argv[1])
    for room in (2**30, 20 * 2**20):
        pages = int(open("/proc/self/statm").read().split()[0])
        soft = pages * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
        print(room >= address_space_left() > room / 2)
        try:
            profiler.enter(sys.argv[1])
        except OutOfMemory as error:
            print(error)
"""


@pytest.mark.parametrize(
    ("phase", "refused"), [("train", True), ("evaluate", True), ("tokenize", False)]
)
def test_phase_with_matrix_products_fails_if_address_space_is_scarce(
    phase: str, refused: bool
) -> None:
    """MKL silently uses a different kernel if it cannot allocate its buffers."""
    done = subprocess.run(
        [sys.executable, "-c", SCARCE_MEMORY, phase],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ample, scarce, *errors = done.stdout.splitlines()
    assert (ample, scarce, len(errors)) == ("True", "True", refused)
    if refused:
        assert re.match(
            r"\d+\.\d MiB were left of the address space limit \(ulimit -v\)\. "
            r".* Raise the limit\.$",
            errors[0],
        )
