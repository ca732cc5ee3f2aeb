"""A real Slurm of one node on this machine, for tests with the marker `slurm`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SETUP = Path(__file__).parent / "slurm" / "setup.sh"
NEEDED = ("slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scancel", "scontrol", "srun")


@dataclass(frozen=True)
class Cluster:
    """A running Slurm. Its commands find it by the environment."""

    folder: Path

    def setup(self, action: str) -> None:
        """Run the script that starts and stops it."""
        log = self.folder / "setup.log"  # not a pipe, which the daemons would hold open
        with log.open("a") as output:
            done = subprocess.run(
                [SETUP, action, self.folder], stdout=output, stderr=output, check=False, timeout=120
            )
        assert done.returncode == 0, log.read_text()

    def command(self, *command: str) -> str:
        """Run one of Slurm's commands and return its output."""
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def jobs(self) -> dict[str, str]:
        """Return the states of all jobs that Slurm remembers."""
        lines = self.command("squeue", "-h", "-r", "-t", "all", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def live(self) -> list[str]:
        """Return the ids of the jobs that wait or run."""
        ended = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "COMPLETING"}
        return [job for job, state in self.jobs().items() if state not in ended]

    def steps(self) -> list[Path]:
        """Return the sockets of the processes that watch jobs on the node."""
        return [path for path in (self.folder / "spool").iterdir() if path.is_socket()]

    def show(self, job: str) -> str:
        """Return all that Slurm knows about a job."""
        return self.command("scontrol", "show", "job", "--oneliner", job)

    def start_now(self, job: str) -> None:
        """Start a requeued job, which Slurm would delay by two minutes."""
        until(lambda: self.jobs()[job] == "PENDING")
        self.command("scontrol", "update", f"jobid={job}", "StartTime=now")


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def slurm_of_session() -> Iterator[Cluster]:
    """Start Slurm once."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"Slurm is not installed here (no {', '.join(missing)}): package slurm-wlm")
    if os.geteuid() != 0:
        pytest.skip("a Slurm for tests can be started by root only")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
        cluster = Cluster(Path(folder))
        try:
            cluster.setup("start")
            yield cluster
        finally:
            cluster.setup("stop")


@pytest.fixture
def slurm(slurm_of_session: Cluster) -> Iterator[Cluster]:
    """A running Slurm. Jobs that a test leaves are cancelled."""
    slurm_of_session.setup("start")
    yield slurm_of_session
    if live := slurm_of_session.live():
        slurm_of_session.command("scancel", *live)
        until(lambda: not slurm_of_session.live())
