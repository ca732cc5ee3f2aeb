"""Slurm's commands: what the cluster has, what its jobs do, and how they are cancelled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from peft_methods.utils.errors import OptionError, PeftMethodsError

COMMANDS = ("sbatch", "squeue", "sinfo", "scancel", "scontrol", "srun")
SECONDS = 60  # within which a command answers; it waits for a busy controller
CONFIGURATION = "SLURM_CONF"
UNKNOWN_JOB = "Invalid job id"  # Slurm forgets jobs some minutes after their end
MAX_IDS = 500  # on one command line
GPU = re.compile(r"gpu:(?:(?P<type>[^:(),]+):)?(?P<count>\d+)")
DURATION = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):\d+")


class SlurmError(PeftMethodsError):
    """A command of Slurm that failed, with its message."""


@dataclass(frozen=True)
class Partition:
    """A partition: its time limits in minutes (None: no limit), and what its nodes have.

    `gpus` is the largest number of GPUs of a type that a node has, by type; a GPU without a type
    has the type ''. `cpus` is the largest number of CPU cores of a node.
    """

    name: str
    is_default: bool
    default_minutes: int | None
    most_minutes: int | None
    gpus: dict[str, int]
    cpus: int


@dataclass(frozen=True)
class JobState:
    """A job's state as `squeue` names it, and Slurm's reason, such as why it waits."""

    state: str = "UNKNOWN"
    reason: str = ""


def check_installed() -> None:
    """Raise `OptionError` if submitit or Slurm's commands are missing."""
    if find_spec("submitit") is None:
        raise OptionError(
            "executor slurm needs the package submitit: pip install 'peft-methods[slurm]'.",
            setting="executor",
        )
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        raise OptionError(
            f"executor slurm needs Slurm's commands, and {', '.join(missing)} cannot be found on "
            "the PATH. Start the session on a login node of the cluster.",
            setting="executor",
        )
    where = os.environ.get(CONFIGURATION)
    if where and not os.path.exists(where):  # Slurm's commands would wait a minute for it
        raise OptionError(
            f"executor slurm: {CONFIGURATION} names {where}, which does not exist. Set it to the "
            "cluster's slurm.conf, or unset it.",
            setting="executor",
        )


def partitions() -> list[Partition]:
    """Return all partitions. Raises `OptionError` if Slurm does not answer."""
    try:
        lines = _run("sinfo", "--noheader", "--format=%P|%L|%l|%G|%c").splitlines()
    except SlurmError as error:
        raise _no_answer(error) from None
    found: dict[str, Partition] = {}
    for line in lines:  # one for each group of equal nodes
        name, default, most, resources, cores = line.split("|")
        key = name.rstrip("*")
        gpus = dict(found[key].gpus) if key in found else {}
        cpus = max(int(cores.rstrip("+")), found[key].cpus if key in found else 0)
        for match in GPU.finditer(resources):
            kind = match["type"] or ""
            gpus[kind] = max(int(match["count"]), gpus.get(kind, 0))
        found[key] = Partition(
            key, name.endswith("*"), _minutes(default), _minutes(most), gpus, cpus
        )
    return list(found.values())


def _no_answer(error: SlurmError) -> OptionError:
    return OptionError(
        f"executor slurm: Slurm does not answer ({error}). Check that `sinfo` works here.",
        setting="executor",
    )


def _minutes(text: str) -> int | None:
    """Convert '1-02:00:00' to 1560; None for 'infinite' or 'n/a'."""
    match = DURATION.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes = (int(match[name] or 0) for name in ("days", "hours", "minutes"))
    return (days * 24 + hours) * 60 + minutes


@cache
def sbatch_parameters() -> frozenset[str]:
    """Return the names of the parameters that the installed sbatch has. Raises `OptionError`."""
    try:
        return frozenset(re.findall(r"--([a-z][a-z-]*)", _run("sbatch", "--help")))
    except SlurmError as error:
        raise _no_answer(error) from None


def states(jobs: Iterable[str]) -> dict[str, JobState] | None:
    """Return the states of jobs, such as '12_3', without those that Slurm has forgotten.

    None if Slurm does not answer.
    """
    arrays = sorted({job.partition("_")[0] for job in jobs})
    found: dict[str, JobState] = {}
    for start in range(0, len(arrays), MAX_IDS):
        chosen = ",".join(arrays[start : start + MAX_IDS])
        try:
            lines = _run(
                "squeue", "--noheader", "--states=all", "--array", "--format=%i|%T|%r",
                f"--jobs={chosen}",
            ).splitlines()  # fmt: skip
        except SlurmError as error:
            if UNKNOWN_JOB in str(error):
                continue
            return None
        for line in lines:
            job, state, reason = line.split("|", 2)
            found[job] = JobState(state, reason)
    return found


def exit_of(job: str) -> tuple[str, str]:
    """Return an ended job's exit code, CODE:SIGNAL, and the node it ran on; '' if unknown."""
    try:
        text = _run("scontrol", "show", "job", "--oneliner", job)
    except SlurmError:
        return "", ""
    found = (re.search(rf"\b{name}=(\S+)", text) for name in ("ExitCode", "BatchHost"))
    code, node = (match[1] if match else "" for match in found)
    return code, node


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs. Those that have ended are ignored. Raises `SlurmError`."""
    for start in range(0, len(jobs), MAX_IDS):
        _run("scancel", "--quiet", *jobs[start : start + MAX_IDS])


def _run(*command: str) -> str:
    """Run a command and return its output. Raises `SlurmError` with the line that says why not."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        raise SlurmError(reason_of(done.stderr or done.stdout) or f"{command[0]} failed")
    return done.stdout


def reason_of(output: str) -> str:
    """Return the line of a command's output that gives the reason, without its prefix."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    best = next((line for line in lines if "error: " in line or "fatal: " in line), "")
    best = best or (lines[0] if lines else "")
    return re.sub(r"^\w+: (?:error|fatal): ", "", best)
