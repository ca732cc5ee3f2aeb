"""Processes as seen by the executor: the fork server, and each worker's connection and status."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from peft_methods.runs.executors.bytecode import environment_with_bytecode
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.fork_server import FORK, STATUS_MESSAGE
from peft_methods.runs.executors.oom import out_of_memory_kills
from peft_methods.runs.executors.stack_dump import innermost_frame, request_stacks, with_short_paths
from peft_methods.runs.record import Status

PRELOAD = "peft_methods.runs.executors.warm_imports"
START = """
import sys
sys.path[:] = {path!r}
from peft_methods.runs.executors.fork_server import main
main({control}, {parent}, armed={armed})
"""
KILL_GRACE_SECONDS = 5
WAYS_OUT = (
    "To fit, run one at a time (workers = 1), halve the batch (set budget.batch_size), "
    "or use a smaller model"
)


class ForkServer:
    """A server that forks processes on request.

    It is started on first use, and restarted when it has died. It first imports the module
    `preload`, so forked processes start with those imports. If that would make forking unsafe, each
    process imports them itself.
    """

    def __init__(
        self, preload: str = PRELOAD, environment: Mapping[str, str] | None = None
    ) -> None:
        self._preload, self._environment = preload, environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        atexit.register(self._end, os.getpid())

    def fork(self, descriptors: list[int]) -> None:
        """Fork a process with these descriptors: its connection, stack file and status pipe."""
        try:
            self._request(descriptors)
        except OSError:  # the server has just died: its socket closes before `poll` sees that
            assert self._process is not None
            self._process.kill()
            self._process.wait()
            self._request(descriptors)

    def _request(self, descriptors: list[int]) -> None:
        self.launch()
        assert self._control is not None
        socket.send_fds(self._control, [FORK], descriptors)

    def launch(self) -> None:
        """Start the server unless it runs. Does not wait for its imports, which take seconds."""
        if self._process is not None and self._process.poll() is None:
            return
        if self._control is not None:
            self._control.close()
        self._control, theirs = socket.socketpair()
        code = START.format(
            path=sys.path,
            control=theirs.fileno(),
            parent=os.getpid(),
            armed=threading.current_thread() is threading.main_thread(),
        )
        with theirs, blocked(signal.SIGINT):
            command = [sys.executable, "-c", code, *filter(None, [self._preload])]
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment_with_bytecode(), **self._environment},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def _end(self, owner: int) -> None:
        if self._process is not None and self._control is not None and os.getpid() == owner:
            self._control.close()
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def blocked(*signals: signal.Signals) -> Iterator[None]:
    """Context manager: block signals here and in processes that are started meanwhile.

    A new process cannot get one before its handler is set.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fork_server(devices: DeviceSet) -> ForkServer:
    """Return this Python process's fork server for these GPUs. Later comparisons reuse its imports.

    Imports choose their libraries by the GPU that they find, so each set of GPUs has its own.
    """
    return _server_for(devices.gpus)


@functools.cache
def _server_for(gpus: tuple[str, ...]) -> ForkServer:
    return ForkServer(environment=DeviceSet(gpus).environment())


class Worker:
    """A process that does a job once its imports are done, or one run after another.

    `is_clean`: it has ended its job and waits for another.
    """

    def __init__(self, server: ForkServer, scratch: Path) -> None:
        self._process: int | None = None
        self._exit_code: int | None = None
        self.begin()
        self._stacks = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by `kill`
        self.connection, theirs = Pipe()
        self._status_pipe, status_pipe = os.pipe()
        server.fork([theirs.fileno(), self._stacks.fileno(), status_pipe])
        theirs.close()
        os.close(status_pipe)

    def begin(self) -> None:
        """Get ready for a job."""
        self.is_clean, self._kills = False, out_of_memory_kills()

    def handles(self) -> list[Any]:
        """Return the handles to wait on: messages, and the end of the process."""
        return [self.connection, self._status_pipe]

    def receive(self) -> Any:
        """Return the next message, or None if there is none yet.

        Raises `EOFError` or `OSError` when the process has ended.
        """
        ended = self.has_ended()  # check first: its last messages have arrived by then
        if self.connection.poll():
            return self.connection.recv()
        if ended:
            raise EOFError
        return None

    def has_ended(self, within: float = 0) -> bool:
        """Whether the process has ended, waiting up to `within` seconds."""
        while self._exit_code is None and wait([self._status_pipe], within):
            message = os.read(self._status_pipe, STATUS_MESSAGE.size)
            if self._process is None and message:
                (self._process,) = STATUS_MESSAGE.unpack(message)
            else:  # the pipe is empty if the server died: its processes die with it
                self._exit_code = STATUS_MESSAGE.unpack(message)[0] if message else -signal.SIGKILL
        return self._exit_code is not None

    @property
    def process(self) -> int | None:
        """The process's id; None if it was not forked yet."""
        self.has_ended()
        return self._process

    def kill(self) -> None:
        """Kill the process and free its resources here.

        A process that was not forked yet ends when it finds its connection closed.
        """
        if self._stacks.closed:
            return
        self.connection.close()
        if not self.has_ended() and self._process is not None:
            # It may have ended already: its status message arrives a moment later.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            self.has_ended(within=KILL_GRACE_SECONDS)
        os.close(self._status_pipe)
        self._stacks.close()

    def was_killed(self) -> bool:
        """Whether a signal ended the process. If so, a retry may succeed."""
        self.has_ended(within=KILL_GRACE_SECONDS)
        return self._exit_code is not None and self._exit_code < 0

    def ended_well(self) -> bool:
        """Whether the process has ended by itself without an error."""
        return self.has_ended() and self._exit_code == 0

    def fate(self) -> tuple[Status, str]:
        """Return the record status that the process's end stands for, and how it ended."""
        cause, kills = self.cause_of_death(), out_of_memory_kills()
        if (
            self._exit_code != -signal.SIGKILL
            or kills is None
            or self._kills is None
            or kills <= self._kills
        ):
            return "crashed", cause
        return "oom", f"the kernel killed its process because memory ran out. {WAYS_OUT}"

    def cause_of_death(self) -> str:
        """Describe how the process ended."""
        if not self.has_ended(within=KILL_GRACE_SECONDS):
            return "its process closed its connection"
        if self._process is None:
            return (
                "its process could not be started because the fork server ended first; "
                "see stderr for the reason"
            )
        code = self._exit_code or 0
        if code >= 0:
            return f"its process ended with exit code {code}"
        where = innermost_frame(self.last_stacks())
        hint = " (out of memory?)" if -code == signal.SIGKILL else f" in {where}" if where else ""
        return f"its process was killed by {signal.Signals(-code).name}{hint}"

    def last_stacks(self) -> str:
        """Return the stacks that the process wrote on request or when a signal ended it, or ''."""
        size = os.fstat(self._stacks.fileno()).st_size
        return with_short_paths(os.pread(self._stacks.fileno(), size, 0).decode(errors="replace"))

    def stacks(self) -> str:
        """Ask the process for the stacks of all threads; '' if it does not answer."""
        if not self.has_ended() and self._process is not None:
            request_stacks(self._process, self._stacks.fileno())
        return self.last_stacks()
