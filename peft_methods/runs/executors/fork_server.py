"""The fork server: a process that imports everything once, then forks a process per run.

multiprocessing's fork server leaves its socket in /tmp when its parent is killed, and does not
notice that while it imports. This one has no address: requests come through an inherited socket.
Only the standard library is imported here. If the imports would make forking unsafe, the server
continues without them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import socket
import struct
import sys
import traceback
from multiprocessing.connection import Connection

from peft_methods.runs.executors.parent_death import die_with_pipe, die_with_process
from peft_methods.runs.executors.stack_dump import DUMP_SIGNAL, enable_stack_dumps

FORK = b"f"
# Messages about a forked process: first its id, then its exit code (negative: the signal).
STATUS_MESSAGE = struct.Struct("q")


def main(control: int, parent: int, *, armed: bool) -> None:
    """Fork processes until the socket `control` closes.

    `armed`: end as soon as the parent ends, also during imports.

    The command's last argument may name a module to import first. If that module sets
    `UNFIT_TO_FORK` (it has started CUDA, which does not survive a fork), this process restarts
    itself without the import.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles interrupts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if armed:
        die_with_process(parent)
    for module in sys.argv[1:]:
        if importlib.import_module(module).UNFIT_TO_FORK:
            print(
                f"{module} is imported by every process separately: "
                "after importing it here, forked processes would not work",
                file=sys.stderr,
            )
            os.execv(sys.executable, sys.orig_argv[:-1])
    with contextlib.suppress(ConnectionError):
        _serve(socket.socket(fileno=control))


def _serve(control: socket.socket) -> None:
    server = os.getpid()
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    # Until a forked process can dump its stacks, a request for them must not end it.
    signal.signal(DUMP_SIGNAL, signal.SIG_IGN)
    signal.set_wakeup_fd(wake)
    status_pipes: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            _report_ends(status_pipes)
        if control.fileno() in ready:
            request, descriptors, _, _ = socket.recv_fds(control, len(FORK), 3)
            if not request:
                return
            connection, stacks, status_pipe = descriptors
            process = os.fork()
            if not process:
                _in_child(
                    server,
                    connection,
                    stacks,
                    [control.detach(), ended, wake, status_pipe, *status_pipes.values()],
                )
            status_pipes[process] = status_pipe
            _send_status(status_pipe, process)
            os.close(connection)
            os.close(stacks)


def _report_ends(status_pipes: dict[int, int]) -> None:
    """Send the exit codes of all forked processes that have ended."""
    for process in list(status_pipes):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            status_pipe = status_pipes.pop(process)
            _send_status(status_pipe, os.waitstatus_to_exitcode(status))
            os.close(status_pipe)


def _send_status(status_pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the reader has closed its end
        os.write(status_pipe, STATUS_MESSAGE.pack(number))


def _in_child(server: int, connection: int, stacks: int, to_close: list[int]) -> None:
    """Serve one job in the forked process, then exit, also after an error."""
    code = 1
    try:
        enable_stack_dumps(stacks)
        die_with_process(server)
        die_with_pipe(connection)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in to_close:
            os.close(descriptor)
        from peft_methods.runs.executors.worker import serve

        serve(Connection(connection))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
