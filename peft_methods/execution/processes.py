"""Processes as the executor holds them: the one they are forked from, and each one's connection, end and stacks."""

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

from peft_methods.execution.devices import DeviceSet
from peft_methods.execution.forking import FORK, TOLD
from peft_methods.execution.kills import out_of_memory_kills
from peft_methods.execution.stacks import ask_for_stacks, innermost, shortened
from peft_methods.records import Status

PRELOAD = "peft_methods.execution.preload"
START = """
import sys
sys.path[:] = {path!r}
from peft_methods.execution.forking import main
main({control}, {parent}, armed={armed})
"""
KILL_GRACE_SECONDS = 5
WAYS_OUT = "What would fit: fewer cells side by side (--peft-workers 1), half the batch (--peft-set budget.batch_size=N), a smaller model"


class ForkServer:
    """Forks processes on request; it is started when first asked, and again where it has died.

    It imports what `preload` names before, so its processes start with that done; where that would spoil them, they do it themselves.
    """

    def __init__(self, preload: str = PRELOAD, environment: Mapping[str, str] | None = None) -> None:
        self._preload, self._environment = preload, environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        atexit.register(self._end, os.getpid())

    def fork(self, descriptors: list[int]) -> None:
        """Have a process forked that gets these: its connection, its file for stacks, and the pipe that tells its end."""
        try:
            self._ask(descriptors)
        except OSError:  # it died a moment ago: its socket closes before its end can be seen
            assert self._process is not None
            self._process.kill()
            self._process.wait()
            self._ask(descriptors)

    def _ask(self, descriptors: list[int]) -> None:
        self.launch()
        assert self._control is not None
        socket.send_fds(self._control, [FORK], descriptors)

    def launch(self) -> None:
        """Start it unless it runs. What it imports takes seconds, which nobody has to wait for."""
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
        with theirs, _interrupts_held():
            command = [sys.executable, "-c", code, *filter(None, [self._preload])]
            self._process = subprocess.Popen(
                command, env={**os.environ, **self._environment}, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )

    def _end(self, owner: int) -> None:
        if self._process is not None and self._control is not None and os.getpid() == owner:
            self._control.close()
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started now does not see an interrupt before it can say what to do with one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
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
    """A process that has done its imports, or is doing them, and takes one job.

    """

    def __init__(self, server: ForkServer, scratch: Path) -> None:
        self._process: int | None = None
        self._exit_code: int | None = None
        self._kills = out_of_memory_kills()
        self._stacks = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by `kill`
        self.connection, theirs = Pipe()
        self._fate, fate = os.pipe()
        server.fork([theirs.fileno(), self._stacks.fileno(), fate])
        theirs.close()
        os.close(fate)

    def handles(self) -> list[Any]:
        """What to wait on: news, or the process's end."""
        return [self.connection, self._fate]

    def receive(self) -> Any:
        """The next message, None where there is none yet. Raises `EOFError` or `OSError` when the process has ended."""
        ended = self.has_ended()  # asked first: what it said before its end is there by then
        if self.connection.poll():
            return self.connection.recv()
        if ended:
            raise EOFError
        return None

    def has_ended(self, within: float = 0) -> bool:
        """Whether it has, or does so within some seconds."""
        while self._exit_code is None and wait([self._fate], within):
            told = os.read(self._fate, TOLD.size)
            if self._process is None and told:
                (self._process,) = TOLD.unpack(told)
            else:  # nothing is told where the server died: its processes die with it
                self._exit_code = TOLD.unpack(told)[0] if told else -signal.SIGKILL
        return self._exit_code is not None

    @property
    def process(self) -> int | None:
        """The process's id; None where it is not there yet."""
        self.has_ended()
        return self._process

    def kill(self) -> None:
        """End the process and free what it held here. One that is not there yet ends when it finds its connection closed."""
        if self._stacks.closed:
            return
        self.connection.close()
        if not self.has_ended() and self._process is not None:
            with contextlib.suppress(
                ProcessLookupError
            ):  # it has ended, which is told a moment later
                os.kill(self._process, signal.SIGKILL)
            self.has_ended(within=KILL_GRACE_SECONDS)
        os.close(self._fate)
        self._stacks.close()

    def was_killed(self) -> bool:
        """Whether a signal ended it: what struck it once may not strike again."""
        self.has_ended(within=KILL_GRACE_SECONDS)
        return self._exit_code is not None and self._exit_code < 0

    def ended_well(self) -> bool:
        """Whether it has ended, by itself and without an error."""
        return self.has_ended() and self._exit_code == 0

    def fate(self) -> tuple[Status, str]:
        """What the end of its process comes to, as a record's status, and how it ended."""
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
        """How the process ended, in words."""
        if not self.has_ended(within=KILL_GRACE_SECONDS):
            return "its process closed its connection"
        if self._process is None:
            return "its process could not be started: the one it is forked from ended first, and stderr says why"
        code = self._exit_code or 0
        if code >= 0:
            return f"its process ended with exit code {code}"
        where = innermost(self.last_stacks())
        hint = " (out of memory?)" if -code == signal.SIGKILL else f" in {where}" if where else ""
        return f"its process was killed by {signal.Signals(-code).name}{hint}"

    def last_stacks(self) -> str:
        """What the process wrote of its threads when a signal such as SIGSEGV ended it, or when asked; else nothing."""
        size = os.fstat(self._stacks.fileno()).st_size
        return shortened(os.pread(self._stacks.fileno(), size, 0).decode(errors="replace"))

    def stacks(self) -> str:
        """What every thread is doing now; nothing where the process does not answer."""
        if not self.has_ended() and self._process is not None:
            ask_for_stacks(self._process, self._stacks.fileno())
        return self.last_stacks()
