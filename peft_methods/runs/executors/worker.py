"""A worker: a process that imports everything, waits for a job and does it, or several runs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import warnings
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from peft_methods.methods.base import TRAINED
from peft_methods.profiling.environment import FINGERPRINT_PACKAGES, package_versions
from peft_methods.runs.executors.cores import keep_to
from peft_methods.runs.executors.failures import failure_of
from peft_methods.runs.executors.jobs import (
    Beside,
    Done,
    EngineFailed,
    PrepareJob,
    RunJob,
    StartSignal,
)
from peft_methods.runs.executors.launch import RankFailed, run_in_ranks
from peft_methods.runs.executors.logs import redirect_output
from peft_methods.runs.executors.other_work import serve_other
from peft_methods.runs.executors.rank import Ranks
from peft_methods.runs.isolation.marks import ISOLATION
from peft_methods.runs.limits import FRESH, WARM
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.scaling import on_one_gpu, with_efficiency
from peft_methods.runs.store import Store, StoreError
from peft_methods.utils.cache import cache_folder
from peft_methods.utils.errors import EngineUnfit, first_line

if TYPE_CHECKING:
    from peft_methods.runs.isolation.kept import Kept
    from peft_methods.runs.isolation.process import RunProcess
    from peft_methods.tasks.base import Predictions

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
PREFETCH_LOG = "prefetch.log"  # the output of a run's process before its turn


def serve(connection: Connection) -> None:
    """Entry point of the process: receive jobs through the connection and send their results.

    On a GPU a run's job may arrive before its turn. Then everything that needs no GPU is done at
    once, and the rest when a `StartSignal` arrives.
    """
    set_up_compiler()
    keep_freed_memory()
    # Slow imports, done before the job arrives. Later they would count to a CPU run's memory.
    import peft_methods.runs.pipeline
    import peft_methods.training.trainer.loop  # noqa: F401

    # Otherwise each collection between two phases would scan all imported objects.
    gc.freeze()
    try:
        job = connection.recv()
    except EOFError:
        return
    if serve_other(job, connection):
        return
    if isinstance(job, PrepareJob):
        _enter(job, dict(os.environ))
        redirect_output(job.log)
        connection.send(_prepare(job))
        return
    _serve_runs(job, connection)


def _serve_runs(first: RunJob, connection: Connection) -> None:
    """Do a run, and further ones as long as each leaves the process as it was."""
    from peft_methods.runs.isolation.process import RunProcess

    process, environment = RunProcess(), dict(os.environ)
    job: RunJob = first
    with contextlib.suppress(EOFError):  # the parent has ended, or needs this process no more
        while True:
            _enter(job, environment)
            if not _serve_run(job, connection, process):
                return
            job = connection.recv()


def _enter(job: RunJob | PrepareJob, environment: Mapping[str, str]) -> None:
    """Take over the environment variables and the directory of a job.

    Those of the fork server, `environment`, are of its start. CUDA reads its devices when it
    starts, which is later.
    """
    wanted = {**environment, **job.environment, **job.devices.environment()}
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
    os.chdir(job.directory)


def _serve_run(job: RunJob, connection: Connection, process: RunProcess) -> bool:
    """Do a run when its turn comes. Whether this process may do another."""
    redirect_output(job.work / PREFETCH_LOG)
    keep_to(job.devices.waiting_cores)
    process.begin(job.run, job.devices.threads)
    prefetched = _prefetched(job, process.kept)
    go: StartSignal = connection.recv()
    keep_to(job.devices.cores)
    # Not earlier: the user may still want the log that an earlier session left there.
    redirect_output(job.log, overwrite=job.is_first_attempt)
    with contextlib.suppress(OSError):
        print(end=(job.work / PREFETCH_LOG).read_text(encoding="utf-8", errors="replace"))
    with warnings.catch_warnings():
        found = _attempt(job, connection, go, prefetched, process.kept)
    del prefetched  # its model
    if isinstance(found, Done):
        connection.send(found)
        return False
    record, predictions = found
    record, is_clean = _isolated(record, process, stays=go.stays)
    connection.send(replace(_stored(job, record, predictions), is_clean=is_clean))
    return is_clean


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
            if name in FINGERPRINT_PACKAGES
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
    from peft_methods.runs import prepare

    try:
        made = prepare.prepare(
            job.recipe,
            job.methods,
            job.device,
            threads=job.devices.threads,
            without_weights=job.without_weights,
        )
        if not job.engines:
            return Done(made)
        from peft_methods.runs.predicting import predictions

        able = [one for one in job.methods if one.name not in made.unsupported]
        found = predictions(job.recipe, able, job.engines)
        return Done(replace(made, predicted=found, is_predicted=True))
    except Exception as error:
        return Done(failure_of(error))


def _attempt(
    job: RunJob, connection: Connection, go: StartSignal, prefetched: Any, kept: Kept
) -> tuple[Record, Predictions | None] | Done:
    """Execute a run. Return its record and predictions, or a result that must not be stored."""
    from peft_methods.runs import run_paths

    try:
        paths = run_paths.RunPaths(
            job.work, job.prerequisites, job.prerequisite_seconds, job.save_to,
            go.matmul_flops_per_second, job.engine_note, job.prerequisite_fingerprints,
            results=job.store if job.checkpoint else None,
        )  # fmt: skip
        job.work.mkdir(parents=True, exist_ok=True)
        turn = FileLock(go.beside.turn) if go.beside.turn else None
        more = {"prefetched": prefetched, "turn": turn, "kept": kept}
        record, predictions = _execute(job, paths, _progress(connection), more)
        return _with_surroundings(record, job, go.beside), predictions
    except EngineUnfit as error:
        return Done(EngineFailed(failure_of(error).message))
    except Exception as error:
        failure = error.failure if isinstance(error, RankFailed) else failure_of(error)
        if failure.status == "engine":
            return Done(EngineFailed(failure.message))
        record = record_without_result(job.run, failure.status, failure.message)
        if failure.gpu_failure or failure.may_pass:
            return Done(record, may_pass=True, gpu_failure=failure.gpu_failure)
        return record, None


def _isolated(record: Record, process: RunProcess, *, stays: bool) -> tuple[Record, bool]:
    """Add to a record whether its process had done runs before, and what it has left behind.

    The second value says whether the process may do another run. After a failure it may not.
    """
    isolation: dict[str, Any] = {"process": WARM if stays else FRESH, "runs_before": process.runs}
    is_clean = False
    if record.status == "ok" and stays:
        try:
            left = process.end()
        except Exception as error:  # for example of CUDA
            left = [f"its state could not be read ({first_line(error)})"]
        isolation["left_behind"], is_clean = left, not left
    environment = {**record.environment, ISOLATION: isolation} if record.environment else {}
    return replace(record, environment=environment), is_clean


def _stored(job: RunJob, record: Record, predictions: Predictions | None) -> Done:
    """Write a record with its files."""
    record = with_efficiency(replace(record, attempts=job.attempts), Store(job.store))
    try:
        is_needed_later = record.status == "ok" and job.run.role == "prerequisite"
        Store(job.store).write(record, predictions, job.work / TRAINED if is_needed_later else None)
    except StoreError as error:
        return Done(record, not_stored=str(error))
    if job.checkpoint and record.status == "ok":
        # only once its record is written
        Store(job.store).remove_checkpoints(on_one_gpu(job.run).key)
    return Done(record)


def _with_surroundings(record: Record, job: RunJob, beside: Beside) -> Record:
    """Add to a record which GPUs it was on, and what ran beside it."""
    surroundings = {
        "gpus": list(job.devices.gpus),
        "runs_at_a_time": beside.runs,
        "trained_in_turns": bool(beside.turn),
    }
    return replace(record, environment=record.environment | surroundings)


def _execute(job: RunJob, paths: Any, progress: Any, more: dict[str, Any]) -> Any:
    """Execute a run here, or in several processes, of which rank 0 reports the progress."""
    from peft_methods.runs import pipeline

    count = job.run.recipe.budget.gpus
    if count == 1:
        return pipeline.execute(job.run, paths, progress, threads=job.devices.threads, **more)
    ranks = Ranks(job.devices, count, job.work / "ranks", job.log, os.getpid())

    def execute(is_first: bool) -> Any:
        send = progress if is_first else lambda news: None
        return pipeline.execute(job.run, paths, send, threads=ranks.threads, turn=None)

    return run_in_ranks(ranks, job.run.device, execute)


def _prefetched(job: RunJob, kept: Kept) -> Any:
    """Do everything for a run on a GPU that can be done before its turn.

    A process that is reused does it in its turn, so that all runs get the same random numbers.
    Nothing for a run on several GPUs: its ranks are forked, and threads do not survive that.

    Errors are ignored: the run itself will hit and record them.
    """
    from peft_methods.runs import prepare

    if not job.run.device.startswith("cuda") or job.run.recipe.budget.gpus > 1:
        return None
    with contextlib.suppress(Exception):
        return prepare.prefetch(
            job.run,
            work=job.work,
            prerequisites=job.prerequisites,
            threads=job.devices.threads,
            kept=kept,
        )
    return None


def _progress(connection: Connection) -> Any:
    """Create a callback that sends progress to the parent."""

    def send(news: dict[str, Any]) -> None:
        # The parent does not read between two tests. Training must not wait for it.
        if select.select([], [connection], [], 0)[1]:
            with contextlib.suppress(BrokenPipeError):
                connection.send(news)

    return send
