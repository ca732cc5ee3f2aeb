"""One rank of a run over several GPUs: a process that a worker forks."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.failures import failure_of
from peft_methods.runs.executors.jobs import Failure
from peft_methods.runs.executors.logs import redirect_output
from peft_methods.runs.executors.parent_death import die_with_process
from peft_methods.utils.errors import EngineUnfit

# Seconds in which the worker finds out which rank ended first, before those that lost it end.
GRACE_SECONDS = 20
# Type names of errors, and parts of their messages, in a rank that has lost another one.
LOST_ERRORS = ("DistBackendError", "DistNetworkError", "DistStoreError")
LOST_MESSAGES = ("gloo/", "gloo ", "NCCL", "Connection closed by peer", "Connection reset by peer")


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run: their devices, the folder for their failures, and their logs.

    `parent` is the worker. Rank 0 writes to the run's own log, the others each to one beside it.
    """

    devices: DeviceSet
    count: int
    folder: Path
    log: Path
    parent: int

    @property
    def threads(self) -> int:
        """The threads of each rank."""
        return max(1, self.devices.threads // self.count)

    def log_of(self, rank: int) -> Path:
        """Return the log of a rank."""
        return self.log.with_suffix(f".rank{rank}.log") if rank else self.log

    def failure_file(self, rank: int) -> Path:
        """Return the file in which a rank describes its failure."""
        return self.folder / f"rank{rank}.failure"

    def failure(self, rank: int) -> Failure | None:
        """Return what a rank says about its failure; None if it could not say anything."""
        with contextlib.suppress(OSError, pickle.UnpicklingError, EOFError):
            failure: Failure = pickle.loads(self.failure_file(rank).read_bytes())
            return failure
        return None


def in_rank(ranks: Ranks, device: str, function: Callable[[bool], Any]) -> Any:
    """Call `function(is_first)` as one rank of a group, and return what rank 0's returns.

    The environment tells the rank's number. The rank ends with its worker.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the worker's own handler waits for Python
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_process(ranks.parent)
    rank = int(os.environ["RANK"])
    if rank:
        redirect_output(ranks.log_of(rank))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # accelerate would take one thread
        os.environ.setdefault(variable, str(ranks.threads))
    if ranks.devices.gpus:
        os.environ.update(DeviceSet((ranks.devices.gpus[rank],)).environment())
    try:
        from peft_methods.training.distributed.group import joined_group

        with joined_group(device):
            result = function(rank == 0)
        return result if rank == 0 else None
    except Exception as error:
        _report(ranks.failure_file(rank), error)
        if has_lost_another(error):
            time.sleep(GRACE_SECONDS)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)  # libraries would wait for the other ranks


def _report(path: Path, error: Exception) -> None:
    failure = failure_of(error)
    if isinstance(error, EngineUnfit):
        failure = Failure(failure.message, failure.by_user, status="engine")
    scratch = path.with_suffix(".part")
    scratch.write_bytes(pickle.dumps(failure))
    scratch.rename(path)


def has_lost_another(error: BaseException | None) -> bool:
    """Whether the error means that another rank has ended, which is then the cause."""
    while error is not None:
        if type(error).__name__ in LOST_ERRORS or any(one in str(error) for one in LOST_MESSAGES):
            return True
        error = error.__cause__ or error.__context__
    return False
