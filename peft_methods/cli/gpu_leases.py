"""GPUs for the tests of any suite: each worker of pytest-xdist has its own, and sharers take turns.

CUDA reads CUDA_VISIBLE_DEVICES once, when it starts, so a process keeps the GPUs that it was given:
worker 0 the first, worker 1 the next and so on, and from the first again if there are more workers
than GPUs. A lock for each GPU lets one test at a time use it, also among several sessions.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from peft_methods.profiling.gpus import VARIABLE, cuda_is_started, gpus_here
from peft_methods.utils.cache import cache_folder
from peft_methods.utils.errors import OptionError
from peft_methods.utils.words import counted

NAME = "peft_devices"  # of the fixture and of the marker with the number of GPUs
SETTING = "peft_devices_per_worker"
FOLDER = "gpu-leases"  # in the user's cache


def add_setting(parser: pytest.Parser) -> None:
    """Register the setting of pytest for suites whose modules start CUDA when imported."""
    parser.addini(
        SETTING,
        "number of GPUs that each worker of pytest-xdist sees, chosen before tests are imported",
        default="",
    )


@dataclass
class WorkerGpus:
    """The GPUs of this process, number `worker` of its session: chosen once, used in turns."""

    worker: int
    visible: tuple[str, ...]
    chosen: tuple[str, ...] = ()
    most: int = 1  # GPUs that any test of this session needs
    locks: Path = field(default_factory=lambda: cache_folder() / FOLDER)

    def choose(self, count: int) -> str:
        """Hide all GPUs but `count` from this process; return why that is not possible, or ''."""
        if count <= len(self.chosen):
            return ""
        if cuda_is_started():
            return (
                f"CUDA had started in this process before {NAME} could choose {count} of its GPUs: "
                f"a module uses it when it is imported, or another test did. Set {SETTING} = "
                f"{max(count, self.most)} in pytest's settings, which chooses before that."
            )
        total = len(self.visible)
        places = [(self.worker * count + place) % total for place in range(count)]
        self.chosen = tuple(self.visible[place] for place in places)
        os.environ[VARIABLE] = ",".join(self.chosen)
        return ""

    @contextlib.contextmanager
    def leased(self, count: int) -> Iterator[tuple[str, ...]]:
        """Context manager: wait until the first `count` chosen GPUs are free, and keep them.

        Locks are taken in one order by all, so that none waits for another in a circle.
        """
        from filelock import FileLock

        self.locks.mkdir(parents=True, exist_ok=True)
        own = self.chosen[:count]
        with contextlib.ExitStack() as stack:
            for uuid in sorted(own):
                file = re.sub(r"[^A-Za-z0-9-]", "_", uuid)
                stack.enter_context(FileLock(self.locks / f"{file}.lock"))
            yield own


GPUS = pytest.StashKey[WorkerGpus]()


def configure(config: pytest.Config) -> None:
    """Choose this worker's GPUs at once if pytest's settings ask for that. Raises `OptionError`."""
    text = str(config.getini(SETTING)).strip()
    if not text:
        return
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= 1024):
        raise OptionError(f"{SETTING} = {text!r} should be a number of GPUs, 1 or more.")
    gpus, count = _gpus_of(config), int(text)
    if _is_worker(config) and gpus.visible:
        gpus.choose(min(count, len(gpus.visible)))


def collected(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Note how many GPUs the tests need at most. A worker of pytest-xdist chooses them at once."""
    counts = [_count_of(item) for item in items if NAME in getattr(item, "fixturenames", ())]
    if not counts:
        return
    gpus = _gpus_of(config)
    gpus.most = max(1, min(max(counts), len(gpus.visible)))
    if _is_worker(config) and gpus.visible:
        gpus.choose(gpus.most)  # if it fails, the fixture will say why


@contextlib.contextmanager
def of_test(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """Context manager: the GPUs of one test. Skips it if there are too few."""
    gpus, count = _gpus_of(request.config), _count_of(request.node)
    if count > len(gpus.visible):
        visible = len(gpus.visible) or "none"
        pytest.skip(f"needs {counted(count, 'NVIDIA GPU')}; visible: {visible}")
    if problem := gpus.choose(max(count, gpus.most)):
        pytest.fail(problem, pytrace=False)
    with gpus.leased(count) as own:
        yield own


def _count_of(item: pytest.Item) -> int:
    """Return the number in the test's marker, by default 1."""
    marker = item.get_closest_marker(NAME)
    count = marker.args[0] if marker and marker.args else 1
    if not isinstance(count, int) or count < 1:
        raise pytest.UsageError(
            f"{item.nodeid}: the marker {NAME}({count!r}) should have a number of GPUs, 1 or more."
        )
    return count


def _gpus_of(config: pytest.Config) -> WorkerGpus:
    if GPUS not in config.stash:
        worker = re.sub(r"\D", "", str(getattr(config, "workerinput", {}).get("workerid", "")))
        visible = tuple(gpu.uuid for gpu in gpus_here())
        config.stash[GPUS] = WorkerGpus(int(worker or 0), visible)
    return config.stash[GPUS]


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
