"""The process that one job runs in: it imports everything, waits for the job, does it and ends."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from filelock import FileLock

from peft_methods.methods.base import TRAINED
from peft_methods.profiling.environment import FINGERPRINT_PACKAGES, package_versions
from peft_methods.runs.executors.cores import keep_to
from peft_methods.runs.executors.gpu_failure import gpu_failure
from peft_methods.runs.executors.jobs import (
    Beside,
    Done,
    EngineFailed,
    Failure,
    PrepareJob,
    RunJob,
    StartSignal,
)
from peft_methods.runs.executors.logs import redirect_output
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store, StoreError
from peft_methods.runs.tracking import tracker_process
from peft_methods.utils.cache import cache_folder
from peft_methods.utils.errors import (
    EngineUnfit,
    PeftMethodsError,
    first_line,
    is_out_of_memory,
    is_transient,
)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
PREFETCH_LOG = "prefetch.log"  # the output of a run's process before its turn
# If more bytes than this on the GPU are not this process's tensors, other processes use the GPU.
# This process's own CUDA context and libraries take less.
MEMORY_OF_OTHERS = 2 * 2**30


def serve(connection: Connection) -> None:
    """Entry point of the process: receive one job through the connection and send its result.

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
    if isinstance(job, tracker_process.Run):
        tracker_process.serve(job, connection)
        return
    # The fork server's environment and directory are those of its start. CUDA reads its devices
    # from the environment when it starts, which is later.
    os.environ.update(job.environment)
    os.environ.update(job.devices.environment())
    os.chdir(job.directory)
    if isinstance(job, PrepareJob):
        redirect_output(job.log)
        connection.send(_prepare(job))
        return
    redirect_output(job.work / PREFETCH_LOG)
    keep_to(job.devices.waiting_cores)
    prefetched = _prefetched(job)
    with contextlib.suppress(EOFError):  # the parent has ended
        go: StartSignal = connection.recv()
        keep_to(job.devices.cores)
        # Not earlier: the user may still want the log that an earlier session left there.
        redirect_output(job.log, overwrite=job.is_first_attempt)
        with contextlib.suppress(OSError):
            print(end=(job.work / PREFETCH_LOG).read_text(encoding="utf-8", errors="replace"))
        connection.send(_train(job, connection, go, prefetched))


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
        return Done(
            prepare.prepare(job.recipe, job.methods, job.device, threads=job.devices.threads)
        )
    except Exception as error:
        return Done(_failure(error))


def _failure(error: Exception) -> Failure:
    traceback.print_exc()
    by_user = isinstance(error, PeftMethodsError)
    setting = error.setting if isinstance(error, PeftMethodsError) else ""
    message = str(error) if by_user else first_line(error)
    return Failure(message, by_user, _may_pass(error), setting, gpu_failure(error))


def _may_pass(error: Exception) -> bool:
    """Whether a retry may succeed, for example when others have freed memory on the GPU."""
    if not is_out_of_memory(error):
        return is_transient(error)
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved() > MEMORY_OF_OTHERS


def _train(job: RunJob, connection: Connection, go: StartSignal, prefetched: Any) -> Done:
    from peft_methods.runs import pipeline, run_paths

    predictions = None
    try:
        paths = run_paths.RunPaths(
            job.work, job.prerequisites, job.prerequisite_seconds, job.save_to,
            go.matmul_flops_per_second, job.engine_note, job.prerequisite_fingerprints,
            results=job.store if job.checkpoint else None,
        )  # fmt: skip
        job.work.mkdir(parents=True, exist_ok=True)
        record, predictions = pipeline.execute(
            job.run,
            paths,
            _progress(connection),
            threads=job.devices.threads,
            prefetched=prefetched,
            turn=FileLock(go.beside.turn) if go.beside.turn else None,
        )
        record = _with_surroundings(record, job, go.beside)
    except EngineUnfit as error:
        return Done(EngineFailed(_failure(error).message))
    except Exception as error:
        record = _record_of(error, job.run)
        if (failed := gpu_failure(error)) or _may_pass(error):
            return Done(record, may_pass=True, gpu_failure=failed)
    record = replace(record, attempts=job.attempts)
    try:
        is_needed_later = record.status == "ok" and job.run.role == "prerequisite"
        Store(job.store).write(record, predictions, job.work / TRAINED if is_needed_later else None)
    except StoreError as error:
        return Done(record, not_stored=str(error))
    if job.checkpoint and record.status == "ok":
        Store(job.store).remove_checkpoints(job.run.key)  # only once its record is written
    return Done(record)


def _with_surroundings(record: Record, job: RunJob, beside: Beside) -> Record:
    """Add to a record which GPUs it was on, and what ran beside it."""
    surroundings = {
        "gpus": list(job.devices.gpus),
        "runs_at_a_time": beside.runs,
        "trained_in_turns": bool(beside.turn),
    }
    return replace(record, environment=record.environment | surroundings)


def _prefetched(job: RunJob) -> Any:
    """Do everything for a run on a GPU that can be done before its turn.

    Errors are ignored: the run itself will hit and record them.
    """
    from peft_methods.runs import prepare

    if not job.run.device.startswith("cuda"):
        return None
    with contextlib.suppress(Exception):
        return prepare.prefetch(
            job.run, work=job.work, prerequisites=job.prerequisites, threads=job.devices.threads
        )
    return None


def _record_of(error: Exception, run: RunSpec) -> Record:
    failure = _failure(error)
    return record_without_result(
        run, "oom" if is_out_of_memory(error) else "failed", failure.message
    )


def _progress(connection: Connection) -> Any:
    """Create a callback that sends progress to the parent."""

    def send(news: dict[str, Any]) -> None:
        # The parent does not read between two tests. Training must not wait for it.
        if select.select([], [connection], [], 0)[1]:
            with contextlib.suppress(BrokenPipeError):
                connection.send(news)

    return send
