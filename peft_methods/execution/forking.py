"""The process that cells' processes are forked from. It may import everything once; then it forks whenever it is asked to.

multiprocessing's fork server leaves its socket in /tmp where its parent is killed, and does not see that while it imports. This
one has no address: it is asked through a socket that it was born with. Nothing but the standard library is imported here: where
the imports would spoil what is forked, it goes on without.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from multiprocessing.connection import Connection

from peft_methods.execution.stacks import answer_for_stacks

FORK = b"f"
TOLD = struct.Struct(
    "q"
)  # what is told of a process: first its id, at its end its exit code (below 0: the signal)
PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def main(control: int, parent: int, *, armed: bool) -> None:
    """Fork until the socket `control` closes. `armed`: die at once with the parent, also amid imports.

    The command's last argument may name a module to import first. Where that one finds itself `UNFIT_TO_FORK` (it has started
    CUDA, which no forked process could start again), the process becomes one without it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if armed:
        die_with_process(parent)
    for module in sys.argv[1:]:
        if importlib.import_module(module).UNFIT_TO_FORK:
            print(
                f"{module} is imported in every process anew: importing it once would spoil them",
                file=sys.stderr,
            )
            os.execv(sys.executable, sys.orig_argv[:-1])
    with contextlib.suppress(ConnectionError):
        _serve(socket.socket(fileno=control))


def die_with_process(parent: int) -> None:
    """Where the kernel can (Linux), have this process killed the moment `parent` ends; at once where it has ended already.

    The kernel takes the thread that started this process for its parent, so that has to be one that lasts: the main thread.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def die_with_pipe(descriptor: int) -> None:
    """Watch, in a thread that sleeps until then, for the other end of a socket to close, and end at once.

    A parent that was killed cannot tell its children; the kernel closes its sockets in any case. Messages are left alone.
    """
    poller = select.poll()
    poller.register(descriptor, 0)  # nothing but its hanging up

    def watch() -> None:
        poller.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _serve(control: socket.socket) -> None:
    server = os.getpid()
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    fates: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            _tell_ends(fates)
        if control.fileno() in ready:
            asked, descriptors, _, _ = socket.recv_fds(control, len(FORK), 3)
            if not asked:
                return
            connection, stacks, fate = descriptors
            process = os.fork()
            if not process:
                _in_child(
                    server,
                    connection,
                    stacks,
                    [control.detach(), ended, wake, fate, *fates.values()],
                )
            fates[process] = fate
            _tell(fate, process)
            os.close(connection)
            os.close(stacks)


def _tell_ends(fates: dict[int, int]) -> None:
    for process in list(fates):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            fate = fates.pop(process)
            _tell(fate, os.waitstatus_to_exitcode(status))
            os.close(fate)


def _tell(fate: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(fate, TOLD.pack(number))


def _in_child(server: int, connection: int, stacks: int, not_its_own: list[int]) -> None:
    """Serve one job and end, whatever comes."""
    code = 1
    try:
        answer_for_stacks(stacks)
        die_with_process(server)
        die_with_pipe(connection)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in not_its_own:
            os.close(descriptor)
        from peft_methods.execution.worker import serve

        serve(Connection(connection))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
