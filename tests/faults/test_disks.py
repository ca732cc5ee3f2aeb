"""A disk that is full, or that nothing can be written to any more: runs say so, end, and go on once it can."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.ground import Ground, Ledger

ROOM = 24 * 2**20  # bytes; a run of the ground's cells needs some of them


class Disk:
    """A file system in memory, of a namespace of its own: it needs no rights, and goes with the shell that made it."""

    def __init__(self) -> None:
        command = ["unshare", *(["--map-root-user"] if os.getuid() else []), "--mount", "sh"]
        self._shell = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.folder = Path(f"/proc/{self._shell.pid}/root/mnt")

    def say(self, command: str) -> str:
        """What the command printed; nothing if all went well."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command} || echo failed; echo done\n")
        self._shell.stdin.flush()
        return "".join(iter(self._shell.stdout.readline, "done\n"))

    def end(self) -> None:
        """Nobody has it any more."""
        self._shell.kill()
        self._shell.communicate()


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Skipped where such a namespace cannot be had."""
    if subprocess.run(
        ["unshare", *(["--map-root-user"] if os.getuid() else []), "--mount", "true"], check=False
    ).returncode:
        pytest.skip("this system lets nobody make a mount of his own")
    made = Disk()
    try:
        if said := made.say(f"mount -t tmpfs -o size={ROOM} none /mnt"):
            pytest.skip(f"no file system of one's own can be mounted here: {said}")
        yield made
    finally:
        made.end()


def fill(folder: Path) -> Path:
    """Take every byte there is left."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (2**16, 2**9, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return ballast


@pytest.mark.faults
@pytest.mark.parametrize("ended", [0, 1, 4, 9])
def test_a_disk_that_gets_full_costs_nothing_that_was_finished(
    ground: Callable[..., Ground], disk: Disk, ended: int
) -> None:
    here = ground(store=disk.folder / "results", options=["--peft-checkpoint"] * (ended % 2))
    run = here.start()
    run.until(lambda: "started" in run.text and run.text.count(": accuracy") >= ended)
    time.sleep(0.2)
    ballast = fill(disk.folder)
    before = here.finished()
    code = run.end()
    assert code in {0, 1}, run.text
    assert "INTERNALERROR" not in run.text
    assert "Traceback" not in run.text
    here.count("disk full", before)
    if code:
        assert "No space left on device" in run.text
        assert "crashed" not in run.text
    ballast.unlink()
    here.complete("disk full")


@pytest.mark.faults
def test_a_disk_that_is_full_from_the_start(ground: Callable[..., Ground], disk: Disk) -> None:
    here = ground(seeds=2, store=disk.folder / "results")
    ballast = fill(disk.folder)
    run = here.start()
    assert run.end() in {1, 4}, run.text
    assert "Traceback" not in run.text
    assert "No space left on device" in run.text
    here.count("disk full", {})
    ballast.unlink()
    here.complete("disk full")


@pytest.mark.faults
def test_a_store_that_cannot_be_written_is_told_at_once_and_can_be_read(
    ground: Callable[..., Ground], disk: Disk
) -> None:
    here = ground(seeds=2, store=disk.folder / "results")
    here.complete("read-only store")
    before = here.finished()
    assert not disk.say("mount -o remount,ro /mnt")
    run = here.start()
    assert run.end() == pytest.ExitCode.USAGE_ERROR
    assert (
        f"results cannot be written to {here.store.folder}: Read-only file system. Choose another folder"
        in run.text
    )
    here.count("read-only store", before)
    assert not disk.say("mount -o remount,rw /mnt")
    here.seeds = 3
    here.complete("read-only store")


@pytest.mark.faults
@pytest.mark.parametrize("ended", [0, 3])
def test_a_store_that_can_be_written_no_more_amid_a_run(
    ground: Callable[..., Ground], ledger: Ledger, ended: int
) -> None:
    here = ground(seeds=3)
    run = here.start()
    run.until(lambda: "started" in run.text and run.text.count(": accuracy") >= ended)
    if subprocess.run(
        ["chattr", "+i", str(here.store.folder)], capture_output=True, check=False
    ).returncode:
        run.parent.kill()
        run.end()
        pytest.skip("this file system or this user has no immutable folders")
    try:
        before = here.finished()
        assert run.end() == 0, run.text  # all was trained, and is in the table
        assert "cannot be written: Operation not permitted" in run.text
        here.count("read-only store", before)
    finally:
        subprocess.run(["chattr", "-i", str(here.store.folder)], check=True)
    here.complete("read-only store")
