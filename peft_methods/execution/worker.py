"""The process that one job runs in: waits for it, its imports done, does it, and ends."""

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
SAID_AHEAD = "ahead.log"  # what a cell's process printed before its turn
MEMORY_OF_OTHERS = (
    2 * 2**30
)  # bytes on the GPU that are not this process's tensors; its context and libraries take less


@dataclass(frozen=True)
class PrepareJob:
    """Read and check a recipe's data and model."""

    recipe: Recipe
    methods: tuple[Method, ...]
    device: str
    log: Path
    threads: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = field(default_factory=os.getcwd, kw_only=True)


@dataclass(frozen=True)
class CellJob:
    """Train one cell and store its record; with `checkpoint`, epoch by epoch, going on from where another process was ended.

    `attempts` says how earlier ones ended.
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
        """Whether no process has tried this cell in this run, with its engine or another."""
        return not self.attempts and not self.engine_note


def job_name(cell: Cell) -> str:
    """Return the name of a run's job."""
    return f"{cell.key}-{cell.engine}"


@dataclass(frozen=True)
class Go:
    """It is a cell's turn. What is known of the device by then comes along."""

    matmul_flops_per_second: float | None = None


@dataclass(frozen=True)
class Failure:
    """A job that could not be done. `by_user` tells a mistake with a message from an error of ours."""

    message: str
    by_user: bool
    may_pass: bool = False
    setting: str = ""


@dataclass(frozen=True)
class EngineFailed:
    """The cell's engine could not run it; another may, in a fresh process."""

    reason: str


@dataclass(frozen=True)
class Done:
    """The job's result; `not_stored` says why the record could not be written.

    What `may_pass` when tried again is not written: whether it is tried again the parent decides.
    """

    result: Record | Preparation | Failure | EngineFailed
    not_stored: str = ""
    may_pass: bool = False


def serve(connection: Connection) -> None:
    """Entry point of the process: do the one job that comes through the connection, and tell of it there.

    A cell's job may come before its turn: on a GPU all that needs none is done at once, the rest when `Go` comes.
    """
    set_up_compiler()
    keep_freed_memory()
    import peft_methods.runner  # noqa: F401  # the costly imports, before the job is known

    gc.freeze()  # or each collection at the border of a phase would walk through all that was imported
    try:
        job = connection.recv()
    except EOFError:
        return
    if isinstance(job, tracker.Run):
        tracker.serve(job, connection)
        return
    os.environ.update(
        job.environment
    )  # the server process that this one was forked from has the environment of its start
    os.chdir(job.directory)  # and its directory
    if isinstance(job, PrepareJob):
        redirect_output(job.log)
        connection.send(_prepare(job))
        return
    redirect_output(job.work / SAID_AHEAD)
    ahead = _loaded_ahead(job)
    with contextlib.suppress(EOFError):  # there is no parent any more
        go: Go = connection.recv()
        redirect_output(
            job.log, anew=job.is_first_attempt
        )  # not before: what an earlier run wrote there may still be wanted
        with contextlib.suppress(OSError):
            print(end=(job.work / SAID_AHEAD).read_text(encoding="utf-8", errors="replace"))
        connection.send(_train(job, connection, go.matmul_flops_per_second, ahead))


def set_up_compiler() -> None:
    """Where torch's compiler keeps its code, of which operations (bitsandbytes' too), and that it needs no processes of its own.

    Those would each import torch first. The folder stays from run to run, unlike one in /tmp, and is these versions' own.
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
    """Let glibc keep the large blocks that every step frees and asks for again, instead of paging them in anew."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most it takes
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
    return Failure(str(error) if by_user else first_line(error), by_user, _passes(error))


def _passes(error: Exception) -> bool:
    """Whether it may go well the next time; memory that others hold on the GPU may be free by then."""
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
            job.work, job.stages, job.source_seconds, job.save_to, rate, job.engine_note, job.stage_identities,
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
        if _passes(error):
            return Done(record, may_pass=True)
    record = replace(record, attempts=job.attempts)
    try:
        is_needed_later = record.status == "ok" and job.cell.is_source and not job.cell.trial
        Store(job.store).write(record, predictions, job.work / TRAINED if is_needed_later else None)
    except StoreError as error:
        return Done(record, not_stored=str(error))
    if job.checkpoint and record.status == "ok":
        Store(job.store).remove_checkpoints(job.cell.key)  # not before its record stands
    return Done(record)


def _loaded_ahead(job: CellJob) -> Any:
    """What a cell on a GPU can do before its turn. What fails here is met again in its turn, where its record tells of it."""
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
    """A callback that sends progress on."""

    def send(news: dict[str, Any]) -> None:
        if select.select([], [connection], [], 0)[
            1
        ]:  # nobody reads between two tests: training does not wait for that
            with contextlib.suppress(BrokenPipeError):
                connection.send(news)

    return send
