"""A disk that is full or becomes read-only.

Sessions report it, end, and continue once the disk is writable again.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disk_builders import UNSHARE
from faults.ground import Ground, Ledger

ROOM = 24 * 2**20  # bytes; the session needs part of them


class Disk:
    """A file system in memory, in a separate mount namespace.

    It needs no privileges and disappears with the shell that created it.
    """

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            [*UNSHARE, "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.folder = Path(f"/proc/{self._shell.pid}/root/mnt")

    def execute(self, command: str) -> str:
        """Run a command in the namespace and return its output; '' if it succeeded."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command} || echo failed; echo done\n")
        self._shell.stdin.flush()
        return "".join(iter(self._shell.stdout.readline, "done\n"))

    def end(self) -> None:
        """Kill the shell, which removes the file system."""
        self._shell.kill()
        self._shell.communicate()


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk; the test is skipped where such a namespace is not available."""
    if subprocess.run([*UNSHARE, "true"], check=False).returncode:
        pytest.skip("this system does not allow mounts in user namespaces")
    made = Disk()
    try:
        if output := made.execute(f"mount -t tmpfs -o size={ROOM} none /mnt"):
            pytest.skip(f"no file system can be mounted here: {output}")
        yield made
    finally:
        made.end()


def fill(folder: Path) -> Path:
    """Fill all remaining space."""
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
def test_full_disk_loses_no_finished_result(
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
def test_disk_full_from_the_start_is_reported(ground: Callable[..., Ground], disk: Disk) -> None:
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
def test_read_only_store_is_reported_at_once_and_stays_readable(
    ground: Callable[..., Ground], disk: Disk
) -> None:
    here = ground(seeds=2, store=disk.folder / "results")
    here.complete("read-only store")
    before = here.finished()
    assert not disk.execute("mount -o remount,ro /mnt")
    run = here.start()
    assert run.end() == pytest.ExitCode.USAGE_ERROR
    assert (
        f"results cannot be written to {here.store.folder}: Read-only file system. "
        "Choose another folder" in run.text
    )
    here.count("read-only store", before)
    assert not disk.execute("mount -o remount,rw /mnt")
    here.seeds = 3
    here.complete("read-only store")


@pytest.mark.faults
@pytest.mark.parametrize("ended", [0, 3])
def test_store_that_becomes_read_only_loses_no_finished_result(
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
        assert run.end() == 0, run.text  # everything was trained and is in the table
        assert "cannot be written: Operation not permitted" in run.text
        here.count("read-only store", before)
    finally:
        subprocess.run(["chattr", "-i", str(here.store.folder)], check=True)
    here.complete("read-only store")
