"""Runs of a folder whose scores are those of their predictions, remembered in the user's cache.

To compute the scores of thousands of runs takes many seconds, and a report is made again and again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from peft_methods.runs.contradictions import scores_of
from peft_methods.runs.record import Record
from peft_methods.runs.store import PREDICTIONS, Store
from peft_methods.utils.cache import cache_folder
from peft_methods.utils.files import write_bytes

FOLDER = "verified"


class VerifiedRuns:
    """The verified runs of a folder: digests of the hash of their predictions and their scores.

    The hash of the predictions is always checked; what is remembered is that they have the scores
    of the record. A changed file or score has another digest.
    """

    def __init__(self, store: Store, known: set[str]) -> None:
        self._store, self._known = store, known
        self.seen: set[str] = set()

    def damage(self, record: Record) -> str:
        """Describe how a record differs from its predictions, or ''. Only finished runs have any.

        Other files beside the record may be missing.
        """
        if record.status != "ok":
            return ""
        suffixes = [PREDICTIONS] if PREDICTIONS in record.files else []
        if damage := self._store.damage_of_files(record, suffixes):
            return damage
        key = _digest(record) if suffixes else ""
        if key not in self._known and (damage := self._store.contradiction(record)):
            return damage
        self.seen |= {key} if key else set()
        return ""


@contextlib.contextmanager
def verified_runs(store: Store) -> Iterator[VerifiedRuns]:
    """Context manager: the verified runs of a store; at the end those seen are remembered."""
    path = _file_of(store.folder)
    runs = VerifiedRuns(store, known := _read(path))
    yield runs
    if runs.seen != known:
        with contextlib.suppress(OSError):  # then they are verified again the next time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes("\n".join(sorted(runs.seen)).encode(), path)


def _digest(record: Record) -> str:
    values = record.spec.recipe.task, record.files[PREDICTIONS], scores_of(record)
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _file_of(folder: Path) -> Path:
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    return cache_folder() / FOLDER / f"{name}.txt"


def _read(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return set()
