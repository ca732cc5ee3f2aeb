"""The node's side of a transfer: what a job's folder has that was not sent yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from peft_methods.runs.executors.ray.messages import (
    LOG,
    MODEL,
    PIECE_BYTES,
    STORE,
    FilePiece,
    Files,
    LogPiece,
    Piece,
    file_pieces,
)

CHECKPOINTS = f"{STORE}/checkpoints"


class Outbox:
    """The new files of a job's folder. Files that the session itself put there are not new."""

    def __init__(self, folder: Path) -> None:
        self.files = 0  # that were sent
        self._folder, self._log_bytes = folder, 0
        self._sent = {path: _state(path) for path in _files(folder / STORE)}
        self._checkpoints = self._checkpoint_names()

    def meanwhile(self) -> Iterator[Piece]:
        """Send what a job prints, and its checkpoints, which must outlive this node."""
        yield from self._log()
        names = self._checkpoint_names()
        if names and names != self._checkpoints:  # those of a finished run stay until it is stored
            yield from self._new_files(self._folder / CHECKPOINTS)
            yield Files(names)
            self._checkpoints = names

    def at_end(self) -> Iterator[Piece]:
        """Send everything that is left: the record with its files, and the saved model."""
        yield from self._log()
        yield from self._new_files(self._folder / STORE)
        yield from self._new_files(self._folder / MODEL)

    def _log(self) -> Iterator[LogPiece]:
        try:
            with (self._folder / LOG).open("rb") as file:
                file.seek(self._log_bytes)
                while content := file.read(PIECE_BYTES):
                    self._log_bytes += len(content)
                    yield LogPiece(content)
        except FileNotFoundError:
            return

    def _new_files(self, folder: Path) -> Iterator[FilePiece]:
        for path in _files(folder):
            try:
                state = _state(path)
                if self._sent.get(path) != state:
                    yield from file_pieces(path, path.relative_to(self._folder).as_posix())
                    self._sent[path] = state
                    self.files += 1
            except FileNotFoundError:  # a checkpoint that a newer one has replaced
                continue

    def _checkpoint_names(self) -> tuple[str, ...]:
        files = _files(self._folder / CHECKPOINTS)
        return tuple(path.relative_to(self._folder).as_posix() for path in files)


def _files(folder: Path) -> list[Path]:
    """Return all complete files. The name of a file that is being written begins with a dot."""
    found = [
        Path(root) / name
        for root, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    ]
    return sorted(found)


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
