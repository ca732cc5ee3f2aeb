"""A run's own folder within the store: locked as long as the run lives, so that the next one knows what a killed run left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from peft_methods.store import Store

PREFIX = "run-"
LOGS = "logs"


class RunFolder:
    """`path` is for scratch and goes with `remove`; `logs` stays: the store's own, or beside another live run one of this run's.

    What dead runs left of both is removed first. The kernel frees the lock of a run that was killed.
    """

    def __init__(self, store: Store) -> None:
        with (
            store.locked()
        ):  # or another run that starts now could take a folder for dead that is not locked yet
            others = [
                folder for folder in store.folder.glob(f"{PREFIX}*") if not _removed_if_dead(folder)
            ]
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=store.folder))
            self._lock: int | None = os.open(self.path, os.O_RDONLY)
            _lock(self._lock)
        live = {folder.name for folder in others}
        for logs in (store.folder / LOGS).glob(f"{PREFIX}*"):
            if logs.name not in live:
                shutil.rmtree(logs, ignore_errors=True)
        self.logs = store.folder / LOGS / self.path.name if others else store.folder / LOGS

    def remove(self) -> None:
        """Remove the scratch files, and be dead from here on."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _removed_if_dead(folder: Path) -> bool:
    """Whether the folder's owner is gone, and the folder with it. Where locks cannot be had every owner may be alive."""
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
