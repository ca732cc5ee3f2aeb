"""The worker on a node: a Ray actor that starts a process for a job and sends what comes from it.

It holds the job's CPUs and GPUs, and imports neither torch nor the job: messages pass through it
as bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

from peft_methods.profiling.gpus import installed_gpus, of_entry
from peft_methods.runs.executors.process import ForkServer, Worker
from peft_methods.runs.executors.ray.messages import (
    MODEL,
    PREREQUISITES,
    STORE,
    WORK,
    Piece,
    Place,
    ProcessEnd,
    message_pieces,
)
from peft_methods.runs.executors.ray.outbox import Outbox
from peft_methods.runs.executors.scratch import PREFIX, RunFolder
from peft_methods.runs.store import Store

REMOVALS, REMOVAL_SECONDS = 20, 0.1
LOOK_SECONDS = 0.5  # between two looks at the log and the checkpoints


class NodeWorker:
    """The folder and the process of one job at a time, on a node. Its methods may run side by side.

    Every job has a fresh process, forked from one that has imported everything. The folder is
    created once the session sends a job, so a worker that has not answered `place` can be killed
    and leaves nothing. It is locked while this worker lives. Those that killed workers left are
    removed by the next one on the node.
    """

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir()) / f"peft-methods-{os.getuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
        if root.stat().st_uid != os.getuid():
            raise PermissionError(f"{root} belongs to another user")
        with contextlib.suppress(OSError):  # only root may; Ray gives its workers low priority
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        self._root, self._server = Store(root), ForkServer()
        self._path = root / f"{PREFIX}{uuid.uuid4().hex}"
        self._scratch: RunFolder | None = None
        self._jobs = 0
        self._folder = self._stopped = self._path  # of the present job, and of the last stopped one
        self._worker: Worker | None = None
        self._closed = False
        self._lock = threading.RLock()  # nobody writes while files are removed

    def place(self, directory: str, paths: tuple[str, ...]) -> Place:
        """Return where this worker is. `directory` is the session's, `paths` those of the job."""
        self._jobs += 1
        self._folder = self._path / f"job{self._jobs}"
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        return Place(
            node=socket.gethostname(),
            folder=self._folder,
            gpus=tuple(_uuid_of(name) for name in map(str.strip, visible) if name),
            directory=directory if Path(directory).is_dir() else str(self._folder),
            missing=tuple(path for path in paths if not Path(path).expanduser().exists()),
        )

    def write(self, name: str, offset: int, content: bytes) -> None:
        """Write a piece of a file that the job needs. Pieces may arrive in any order.

        Does nothing after `stop` and `close`, which may overtake it.
        """
        with self._lock:
            if self._open() is None:
                return
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, content, offset)
            finally:
                os.close(file)

    def run(self, *messages: bytes) -> Iterator[Piece]:
        """Start the process, send it these messages, and yield what it prints, says and writes."""
        with self._lock:
            folder, scratch = self._folder, self._open()
            if scratch is None:
                return
            for name in (STORE, WORK, MODEL, PREREQUISITES):
                (folder / name).mkdir(parents=True, exist_ok=True)
            outbox = Outbox(folder)
            worker = self._worker = Worker(self._server, scratch)
        with contextlib.suppress(EOFError, OSError):  # the process has ended
            for message in messages:
                worker.connection.send_bytes(message)
            while True:
                content = _next(worker)
                yield from outbox.meanwhile()
                yield from message_pieces(content)
        yield from outbox.at_end()
        status, reason = worker.fate()
        end = ProcessEnd(status, reason, worker.was_killed(), worker.last_stacks(), outbox.files)
        # First, since the session gives this worker another job as soon as it knows of the end.
        self._clear(worker, folder)
        yield end

    def _open(self) -> Path | None:
        """Return the worker's folder, which is created if needed; None if no job may begin."""
        if self._closed or self._folder == self._stopped:
            return None
        if self._scratch is None:
            self._scratch = RunFolder(self._root, self._path.name)
        return self._scratch.path

    def has_started(self) -> bool:
        """Whether the job's process runs."""
        worker = self._worker
        return worker is not None and worker.process is not None

    def stacks(self) -> str:
        """Return the stack of every thread of the process; '' if it does not answer."""
        worker = self._worker
        return "" if worker is None else worker.stacks()

    def stop(self) -> None:
        """End the process and remove its files."""
        with self._lock:
            self._stopped = self._folder
            self._clear(self._worker, self._folder)
            self._worker = None

    def close(self) -> None:
        """End the process and remove the folder: no job follows."""
        with self._lock:
            self._closed = True
            self.stop()
            if self._scratch is not None:
                self._scratch.remove()
            for _ in range(REMOVALS):  # a process that is just ending may write once more
                if not self._path.exists():
                    break
                time.sleep(REMOVAL_SECONDS)
                shutil.rmtree(self._path, ignore_errors=True)

    def _clear(self, worker: Worker | None, folder: Path) -> None:
        """End a process and remove its files. Two threads that did so at once would fail."""
        with self._lock:
            if worker is not None:
                worker.kill()
            shutil.rmtree(folder, ignore_errors=True)


def _next(worker: Worker) -> bytes:
    """Return the process's next message; empty if there is none yet.

    Raises `EOFError` or `OSError` when the process has ended.
    """
    wait(worker.handles(), LOOK_SECONDS)
    ended = worker.has_ended()  # check first: its last messages have arrived by then
    if worker.connection.poll():
        return worker.connection.recv_bytes()
    if ended:
        raise EOFError
    return b""


def _uuid_of(name: str) -> str:
    """Return the UUID of the GPU that Ray names by its index; the name if the driver has none."""
    found = of_entry(name, installed_gpus())
    return found[0].uuid if found else name
