"""The process that one job runs in: it imports everything, waits for the job, does it and ends."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import traceback
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from peft_methods.cells import Cell, Preparation
from peft_methods.embedded import cache_folder
from peft_methods.environment import IDENTITY_PACKAGES, package_versions
from peft_methods.errors import (
    EngineUnfit,
    PeftMethodsError,
    first_line,
    is_out_of_memory,
    may_pass,
)
from peft_methods.execution import tracker
from peft_methods.execution.output import redirect_output
from peft_methods.methods import TRAINED, Method
from peft_methods.recipe import Recipe
from peft_methods.records import Record, without_result
from peft_methods.store import Store, StoreError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
PREFETCH_LOG = "ahead.log"  # the output of a run's process before its turn
# If more bytes than this on the GPU are not this process's tensors, other processes use the GPU.
# This process's own CUDA context and libraries take less.
MEMORY_OF_OTHERS = 2 * 2**30


@dataclass(frozen=True)
class PrepareJob:
    """A job that reads and checks a recipe's data and model."""

    recipe: Recipe
    methods: tuple[Method, ...]
    device: str
    log: Path
    threads: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = field(default_factory=os.getcwd, kw_only=True)


@dataclass(frozen=True)
class CellJob:
    """A job that trains one run and stores its record.

    With `checkpoint`, each epoch's state is saved, and training resumes where an earlier process
    was killed. `attempts` describes how earlier attempts ended.
    """

    cell: Cell
    work: Path
    stages: tuple[Path, ...]
    source_seconds: float | None
    save_to: Path | None
    store: Path
    log: Path
    threads: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = field(default_factory=os.getcwd, kw_only=True)
    engine_note: str = ""
    stage_identities: tuple[str, ...] = ()
    attempts: tuple[str, ...] = ()
    checkpoint: bool = False

    @property
    def name(self) -> str:
        """The run's key and engine: identifies the job while it is prefetched."""
        return job_name(self.cell)

    @property
    def is_first_attempt(self) -> bool:
        """Whether this is the run's first process in this session, with any engine."""
        return not self.attempts and not self.engine_note


def job_name(cell: Cell) -> str:
    """Return the name of a run's job."""
    return f"{cell.key}-{cell.engine}"


@dataclass(frozen=True)
class Go:
    """The signal that it is a run's turn, with what is known about the device by then."""

    matmul_flops_per_second: float | None = None


@dataclass(frozen=True)
class Failure:
    """A job that failed.

    `by_user` marks a user's mistake, whose message is complete. All other errors are ours.
    `setting` names the setting to change, as in `PeftMethodsError`.
    """

    message: str
    by_user: bool
    may_pass: bool = False
    setting: str = ""


@dataclass(frozen=True)
class EngineFailed:
    """The run's engine cannot run it. Another engine may, in a fresh process."""

    reason: str


@dataclass(frozen=True)
class Done:
    """The result of a job; `not_stored` is the reason if the record could not be written.

    A failure that `may_pass` is not written: the parent decides whether to retry.
    """

    result: Record | Preparation | Failure | EngineFailed
    not_stored: str = ""
    may_pass: bool = False


def serve(connection: Connection) -> None:
    """Entry point of the process: receive one job through the connection and send its result.

    On a GPU a run's job may arrive before its turn. Then everything that needs no GPU is done at
    once, and the rest when `Go` arrives.
    """
    set_up_compiler()
    keep_freed_memory()
    import peft_methods.runner  # noqa: F401  # slow imports, done before the job arrives

    # Otherwise each collection between two phases would scan all imported objects.
    gc.freeze()
    try:
        job = connection.recv()
    except EOFError:
        return
    if isinstance(job, tracker.Run):
        tracker.serve(job, connection)
        return
    # The fork server's environment and directory are those of its start.
    os.environ.update(job.environment)
    os.chdir(job.directory)
    if isinstance(job, PrepareJob):
        redirect_output(job.log)
        connection.send(_prepare(job))
        return
    redirect_output(job.work / PREFETCH_LOG)
    ahead = _prefetched(job)
    with contextlib.suppress(EOFError):  # the parent has ended
        go: Go = connection.recv()
        # Not earlier: the user may still want the log that an earlier session left there.
        redirect_output(job.log, overwrite=job.is_first_attempt)
        with contextlib.suppress(OSError):
            print(end=(job.work / PREFETCH_LOG).read_text(encoding="utf-8", errors="replace"))
        connection.send(_train(job, connection, go.matmul_flops_per_second, ahead))


def set_up_compiler() -> None:
    """Set the compiler's cache folder and settings for torch (and so for bitsandbytes).

    The cache is kept between sessions, unlike one in /tmp, and has one folder per set of library
    versions. Custom operations are cached too. The compiler starts no processes of its own, since
    each would import torch first.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        versions = "-".join(
            f"{name}{version}"
            for name, version in package_versions().items()
            if name in IDENTITY_PACKAGES
        )
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "compiled" / versions)
        os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD", "1")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks, since every step allocates the same blocks again.

    Otherwise the kernel would have to page them in at every step.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the maximum
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


def _prepare(job: PrepareJob) -> Done:
    from peft_methods import starting

    try:
        return Done(starting.prepare(job.recipe, job.methods, job.device, threads=job.threads))
    except Exception as error:
        return Done(_failure(error))


def _failure(error: Exception) -> Failure:
    traceback.print_exc()
    by_user = isinstance(error, PeftMethodsError)
    setting = error.setting if isinstance(error, PeftMethodsError) else ""
    message = str(error) if by_user else first_line(error)
    return Failure(message, by_user, _may_pass(error), setting)


def _may_pass(error: Exception) -> bool:
    """Whether a retry may succeed, for example when others have freed memory on the GPU."""
    if not is_out_of_memory(error):
        return may_pass(error)
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved() > MEMORY_OF_OTHERS


def _train(job: CellJob, connection: Connection, rate: float | None, ahead: Any) -> Done:
    from peft_methods import runner

    predictions = None
    try:
        places = runner.Places(
            job.work, job.stages, job.source_seconds, job.save_to, rate,
            job.engine_note, job.stage_identities,
            results=job.store if job.checkpoint else None,
        )  # fmt: skip
        job.work.mkdir(parents=True, exist_ok=True)
        record, predictions = runner.run(
            job.cell, places, _progress(connection), threads=job.threads, ahead=ahead
        )
    except EngineUnfit as error:
        return Done(EngineFailed(_failure(error).message))
    except Exception as error:
        record = _record_of(error, job.cell)
        if _may_pass(error):
            return Done(record, may_pass=True)
    record = replace(record, attempts=job.attempts)
    try:
        is_needed_later = record.status == "ok" and job.cell.is_source and not job.cell.trial
        Store(job.store).write(record, predictions, job.work / TRAINED if is_needed_later else None)
    except StoreError as error:
        return Done(record, not_stored=str(error))
    if job.checkpoint and record.status == "ok":
        Store(job.store).remove_checkpoints(job.cell.key)  # only once its record is written
    return Done(record)


def _prefetched(job: CellJob) -> Any:
    """Do everything for a run on a GPU that can be done before its turn.

    Errors are ignored: the run itself will hit and record them.
    """
    from peft_methods import starting

    if not job.cell.device.startswith("cuda"):
        return None
    with contextlib.suppress(Exception):
        return starting.load_ahead(job.cell, work=job.work, stages=job.stages, threads=job.threads)
    return None


def _record_of(error: Exception, cell: Cell) -> Record:
    failure = _failure(error)
    return without_result(cell, "oom" if is_out_of_memory(error) else "failed", failure.message)


def _progress(connection: Connection) -> Any:
    """Create a callback that sends progress to the parent."""

    def send(news: dict[str, Any]) -> None:
        # The parent does not read between two tests. Training must not wait for it.
        if select.select([], [connection], [], 0)[1]:
            with contextlib.suppress(BrokenPipeError):
                connection.send(news)

    return send
