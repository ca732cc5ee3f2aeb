"""Start the ranks of a run over several GPUs with torch's elastic launch, and tell how they ended.

The worker that starts them uses no GPU itself. If one rank ends early, the others are ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from peft_methods.runs.executors.jobs import Failure
from peft_methods.runs.executors.oom import out_of_memory_kills
from peft_methods.runs.executors.rank import Ranks, in_rank
from peft_methods.utils.errors import PeftMethodsError

LOOPBACK = "127.0.0.1"
END_SECONDS = 5  # for ranks to end after the signal to do so
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


class RankFailed(PeftMethodsError):
    """A rank failed, or ended without a word. `failure` says which one and why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, setting=failure.setting)
        self.failure = failure


def run_in_ranks(ranks: Ranks, device: str, function: Callable[[bool], Any]) -> Any:
    """Call `function(is_first)` in every rank and return what rank 0's returns.

    Raises `RankFailed`.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    ranks.folder.mkdir(parents=True, exist_ok=True)
    for rank in range(ranks.count):
        ranks.failure_file(rank).unlink(missing_ok=True)
    kills = out_of_memory_kills()
    try:
        with _environment(NO_GPU):
            launched = elastic_launch(_config(ranks), in_rank)
            return launched(ranks, device, function)[0]
    except ChildFailedError as error:
        rank, ended = min(error.failures.items())
        raise RankFailed(_described(ranks, rank, ended.exitcode, kills)) from None


def _config(ranks: Ranks) -> Any:
    """Return the settings of the launch: one machine, a free port, no restart of single ranks.

    Ranks are forked, so they have the worker's imports.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    wanted: dict[str, Any] = {
        "min_nodes": 1,
        "max_nodes": 1,
        "nproc_per_node": ranks.count,
        "run_id": uuid.uuid4().hex,
        "rdzv_backend": "c10d",
        "rdzv_endpoint": f"{LOOPBACK}:0",
        "local_addr": LOOPBACK,
        "max_restarts": 0,
        "monitor_interval": 0.1,
        "start_method": "fork",
        "logs_specs": DefaultLogsSpecs(log_dir=str(ranks.folder / "elastic")),
        "signals_to_handle": "SIGTERM",  # Ctrl-C is the session's
        "shutdown_timeout": END_SECONDS,
    }
    known = {one.name for one in dataclasses.fields(LaunchConfig)}
    return LaunchConfig(**{name: value for name, value in wanted.items() if name in known})


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Context manager: set environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _described(ranks: Ranks, rank: int, code: int, kills: int | None) -> Failure:
    """Return the failure of the rank that ended first, as its record will have it."""
    which = f"rank {rank} of {ranks.count}"
    where = f"; its output is in {ranks.log_of(rank)}"
    found = ranks.failure(rank)
    if found is not None:
        message = f"{which}: {found.message}"
        details = where if not found.by_user else ""
        return dataclasses.replace(found, message=message + details)
    if code >= 0:
        return Failure(
            f"{which} ended with exit code {code}{where}", by_user=False, status="crashed"
        )
    now = out_of_memory_kills()
    if code == -signal.SIGKILL and kills is not None and now is not None and now > kills:
        return Failure(
            f"the kernel killed {which} because memory ran out. Halve the batch (set "
            f"budget.batch_size), or use a smaller model",
            by_user=False,
            status="oom",
        )
    name = signal.Signals(-code).name
    return Failure(
        f"{which} was killed by {name}{where}", by_user=False, may_pass=True, status="crashed"
    )
