"""The files through which a session and the jobs on the nodes exchange what they know.

All lie in one folder that login node and nodes share. Names start with the job's id in Slurm, as
submitit names its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_methods.utils.files import write_bytes

TOKEN = "token"
NAME, TASK = ".job", "_0"


@dataclass(frozen=True)
class JobFolder:
    """The folder of all jobs. `NAME.job` holds the id of the job that does the work of that name.

    A job whose file is gone, or names another id, is not wanted any more.
    """

    path: Path

    def prepare(self) -> None:
        """Create the folder, with a token by which a node recognises it."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / TOKEN).is_file():
            write_bytes(uuid.uuid4().hex.encode(), self.path / TOKEN)

    def names(self) -> frozenset[str]:
        """Return the names of all files. There are none once the session has ended."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            return frozenset(entry.name for entry in entries)
        return frozenset()

    def assigned(self) -> dict[str, str]:
        """Return the ids of all wanted jobs by the name of their work."""
        found = {}
        for file in self.path.glob(f"*{NAME}"):
            with contextlib.suppress(OSError):
                found[file.name.removesuffix(NAME)] = file.read_text(encoding="utf-8")
        return found

    def assign(self, name: str, job: str) -> None:
        """Note that this job does the work of this name."""
        write_bytes(job.encode(), self.path / f"{name}{NAME}")

    def is_assigned(self, name: str, job: str) -> bool:
        """Whether this job is still wanted."""
        try:
            return (self.path / f"{name}{NAME}").read_text(encoding="utf-8") == job
        except OSError:
            return False

    def remove(self, name: str, job: str | None = None) -> None:
        """Withdraw the work of this name and delete the job's files."""
        (self.path / f"{name}{NAME}").unlink(missing_ok=True)
        if job is not None:
            for file in self.path.glob(f"{job}[_.]*"):
                file.unlink(missing_ok=True)

    def of(self, job: str) -> JobFiles:
        """Return one job's files."""
        return JobFiles(self.path, job)


@dataclass(frozen=True)
class JobFiles:
    """The files of one job."""

    folder: Path
    job: str

    @property
    def result(self) -> Path:
        """What the job returned, pickled by submitit."""
        return self.folder / f"{self.job}{TASK}_result.pkl"

    @property
    def output(self) -> Path:
        """What the job printed before its work began."""
        return self.folder / f"{self.job}{TASK}_log.out"

    @property
    def progress(self) -> Path:
        """The job's progress reports, one a line."""
        return self.folder / f"{self.job}.progress"

    @property
    def wanted_stacks(self) -> Path:
        """The session's request for stacks: a number."""
        return self.folder / f"{self.job}.wanted"

    @property
    def stacks(self) -> Path:
        """The number of the last request, and the stacks on the following lines."""
        return self.folder / f"{self.job}.stacks"

    def read_result(self) -> Any:
        """Return the result as submitit stores it: its kind and value; None if there is none."""
        try:
            return pickle.loads(self.result.read_bytes())
        except FileNotFoundError:
            return None
        except Exception as error:  # pickle raises anything
            return "error", f"its result cannot be read ({type(error).__name__}: {error})"

    def append_output_to(self, log: Path) -> None:
        """Append to a run's log what the job and Slurm printed beside it."""
        with contextlib.suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                file.write(self.output.read_bytes())

    def ask_for_stacks(self, seconds: float) -> str:
        """Ask the job for its stacks and return them; '' if it does not answer in time."""
        number = uuid.uuid4().hex
        with contextlib.suppress(OSError):
            self.wanted_stacks.write_text(number, encoding="utf-8")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                with contextlib.suppress(FileNotFoundError):
                    first, _, stacks = self.stacks.read_text(encoding="utf-8").partition("\n")
                    if first == number:
                        return stacks
                time.sleep(0.1)
        return ""

    def report(self, news: dict[str, Any]) -> None:
        """Append a progress report. A full disk must not fail a run."""
        with contextlib.suppress(OSError), self.progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps(news) + "\n")

    def reports_from(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Return the complete reports from this offset on, and the offset after them."""
        try:
            with self.progress.open("rb") as file:
                file.seek(offset)
                lines, _, _ = file.read().rpartition(b"\n")
        except OSError:
            return [], offset
        if not lines:
            return [], offset
        return list(_parsed(lines)), offset + len(lines) + 1


def _parsed(lines: bytes) -> Iterator[dict[str, Any]]:
    for line in lines.split(b"\n"):
        with contextlib.suppress(ValueError):
            yield json.loads(line)
