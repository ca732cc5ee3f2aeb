"""What a node sends to the session: messages, log lines and files, all in small pieces.

Ray sends a value below 100 KB with the reply itself. So nothing here ever lies in Ray's object
store: large files do not fill it, and a store that others have filled stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peft_methods.runs.record import Status

PIECE_BYTES = 90_000
AHEAD = 64  # pieces that may be on their way at the same time
STORE, WORK, MODEL, PREREQUISITES, LOG = "store", "work", "model", "prerequisites", "log.txt"


@dataclass(frozen=True)
class LogPiece:
    """What a job's process has printed since the piece before."""

    content: bytes


@dataclass(frozen=True)
class MessagePiece:
    """A part of a pickled message of a job's process; the message is complete if it is `last`."""

    content: bytes
    last: bool


@dataclass(frozen=True)
class FilePiece:
    """A part of a file of a job, from `offset` on. The file is complete if it is `last`."""

    name: str
    content: bytes
    offset: int
    last: bool


@dataclass(frozen=True)
class Files:
    """The checkpoints that a job has now. Older ones of the session can be deleted."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class ProcessEnd:
    """A job's process ended; nothing follows. The cause matters only if it sent no result.

    `files` is the number of files that were sent.
    """

    status: Status
    reason: str
    transient: bool
    stack: str
    files: int


Piece = LogPiece | MessagePiece | FilePiece | Files | ProcessEnd


@dataclass(frozen=True)
class Place:
    """Where a job runs: its node, its folder there, and its GPUs.

    `missing` are the local paths of the job that do not exist on the node. `directory` is the
    session's if the node has it, else the folder.
    """

    node: str
    folder: Path
    gpus: tuple[str, ...]
    directory: str
    missing: tuple[str, ...]


def message_pieces(content: bytes) -> Iterator[MessagePiece]:
    """Cut a message."""
    starts = range(0, len(content), PIECE_BYTES)
    for start in starts:
        yield MessagePiece(content[start : start + PIECE_BYTES], start == starts[-1])


def file_pieces(path: Path, name: str) -> Iterator[FilePiece]:
    """Read a file in pieces. One that is deleted meanwhile is still read to its end."""
    with path.open("rb") as file:
        offset, content = 0, file.read(PIECE_BYTES)
        while True:  # an empty file is a piece too
            following = file.read(PIECE_BYTES)
            yield FilePiece(name, content, offset, last=not following)
            if not following:
                return
            offset, content = offset + len(content), following
