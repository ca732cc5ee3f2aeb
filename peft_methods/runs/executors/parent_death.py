"""The end of a process with the process that started it. Only the standard library is imported."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading

PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def die_with_process(parent: int) -> None:
    """On Linux, have the kernel kill this process as soon as `parent` ends.

    Ends this process at once if the parent has ended already. The kernel counts the thread that
    started this process as its parent, so that thread must live as long as the process: use the
    main thread.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def die_with_pipe(descriptor: int) -> None:
    """Kill this process when the other end of a socket closes. A sleeping thread watches it.

    A killed parent cannot notify its children, but the kernel always closes its sockets. The thread
    does not read messages.
    """
    poller = select.poll()
    poller.register(descriptor, 0)  # only hang-ups

    def watch() -> None:
        poller.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
