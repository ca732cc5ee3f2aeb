"""A session's folder within the store.

It is locked while the session lives, so the next session can tell what a killed one left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from peft_methods.runs.store import Store
from peft_methods.utils.errors import OptionError

PREFIX = "run-"
LOGS, JOBS = "logs", "jobs"
WANTED = "*.job"  # in the folder of jobs: one for each that may outlive its session


class RunFolder:
    """A folder for scratch files, and one for logs.

    `remove` deletes `path`, the scratch folder. `logs` stays: it is the store's log folder, or a
    separate one while another session is active. Folders of dead sessions are removed first. The
    kernel frees the lock of a killed session. A `name` must begin with `PREFIX`.
    """

    def __init__(self, store: Store, name: str | None = None) -> None:
        # Without the lock, a session starting now could remove our folder before it is locked.
        with store.locked():
            others = [
                folder for folder in store.folder.glob(f"{PREFIX}*") if not _remove_if_dead(folder)
            ]
            if name is None:
                self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=store.folder))
            else:
                self.path = store.folder / name
                self.path.mkdir(mode=0o700)
            self._lock: int | None = os.open(self.path, os.O_RDONLY)
            _lock(self._lock)
        live = {folder.name for folder in others}
        for logs in (store.folder / LOGS).glob(f"{PREFIX}*"):
            if logs.name not in live:
                shutil.rmtree(logs, ignore_errors=True)
        self.logs = store.folder / LOGS / self.path.name if others else store.folder / LOGS

    def remove(self) -> None:
        """Remove the scratch files and release the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class SharedFolder(RunFolder):
    """The folder of sessions whose jobs may outlive them, for one executor.

    One session uses it at a time, so that no two start the same run. `remove` deletes it once no
    job needs it.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.path, self.logs = store.folder / name, store.folder / LOGS / name
        self.path.mkdir(mode=0o700, exist_ok=True)  # its files are pickled jobs
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise OptionError(
                f"another session uses the executor {name!r} with the results in {store.folder}. "
                "Wait for its end, or choose another folder for results.",
                setting="results",
            ) from None
        except OSError:
            pass  # no locks on this file system

    def remove(self) -> None:
        """Remove the folder unless a job needs it, and release the lock."""
        if self._lock is None:
            return
        if not any((self.path / JOBS).glob(WANTED)):
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def _remove_if_dead(folder: Path) -> bool:
    """Remove the folder if its owner has ended; whether it is gone.

    Without working locks every owner may be alive, so nothing is removed.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not _lock(handle):
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
