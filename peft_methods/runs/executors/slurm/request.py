"""What each job asks of Slurm: partition, time, GPUs and further parameters of `sbatch`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.slurm import commands
from peft_methods.runs.executors.slurm.commands import Partition
from peft_methods.runs.limits import parse_timeout
from peft_methods.utils.errors import OptionError, nearest

SETTING = "slurm"
NO_GPU = "none"
OURS = ("partition", "account", "qos", "time", "gpu", "cpus", "mem")
# Parameters of `sbatch` that an executor sets itself.
SET_BY_US = frozenset(
    {
        *("array", "chdir", "cpus-per-task", "error", "export", "gpus", "gpus-per-node", "gres"),
        *("gpus-per-task", "job-name", "nodes", "ntasks", "open-mode", "output", "requeue"),
        *("no-requeue", "signal", "wait", "wrap"),
    }
)
DEFAULT_CPUS = 2
LEAST_MINUTES = 2  # Slurm may warn a job 90 s before its end, before it could begin
LONGEST_MINUTES = 7 * 24 * 60  # where the partition has no limit
MOST_JOBS = 1000  # in Slurm at once; most clusters allow no larger arrays
ASSIGNMENTS = re.compile(r",(?=[a-z-]+=)")  # a value may hold commas: exclude=n[1,2]


@dataclass(frozen=True)
class SlurmRequest:
    """What each job asks for.

    `gpu` is the type of GPU in the partition's generic resources ('' for GPUs without one), and
    None where runs train on CPUs. `minutes` is the time limit of a job, after which its run resumes
    in the next one. `largest_node` is the largest number of these GPUs on a node, or of CPU cores
    where runs train on CPUs. `parallel` is the number of jobs that run at a time (None: as many as
    Slurm starts). `extra` are further parameters of `sbatch`.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    minutes: int = LONGEST_MINUTES
    gpu: str | None = None
    cpus: int = DEFAULT_CPUS
    mem: str | None = None
    parallel: int | None = None
    extra: tuple[tuple[str, str], ...] = ()
    largest_node: int | None = field(default=None, repr=False)  # changes no result

    @property
    def device(self) -> str:
        """Return 'cuda' or 'cpu', as a run's spec names its device."""
        return "cpu" if self.gpu is None else "cuda"

    @property
    def device_name(self) -> str:
        """Return the type of GPU, or 'cpu'. Baselines are stored under this name."""
        return "cpu" if self.gpu is None else self.gpu or "gpu"

    def slots(self) -> tuple[DeviceSet, ...]:
        """Return one device set for each job that may be in Slurm at a time."""
        gpus = () if self.gpu is None else ("gpu",)
        return (DeviceSet(gpus, self.cpus),) * MOST_JOBS


def parse_request(texts: Sequence[str]) -> dict[str, str]:
    """Parse KEY=VALUE assignments; one text may hold several. Raises `OptionError`."""
    values: dict[str, str] = {}
    for part in [part for text in texts for part in ASSIGNMENTS.split(text)]:
        key, equals, value = (one.strip() for one in part.partition("="))
        if not (key and equals and value):
            raise OptionError(
                f"slurm {part!r} should be KEY=VALUE, for example partition=gpu,time=2h.",
                setting=SETTING,
            )
        values[key] = value
    return values


def resolve(values: Mapping[str, str], parallel: int | None = None) -> SlurmRequest:
    """Check a request against the cluster and fill in what it leaves open. Raises `OptionError`."""
    commands.check_installed()
    extra = {key: str(value) for key, value in values.items() if key not in OURS}
    _check_names(extra)
    partition = _partition(values.get("partition"), commands.partitions())
    gpu = _gpu(values.get("gpu"), partition)
    return SlurmRequest(
        partition=values.get("partition"),
        account=values.get("account"),
        qos=values.get("qos"),
        minutes=_minutes(values.get("time"), partition),
        gpu=gpu,
        cpus=_cpus(values.get("cpus", str(DEFAULT_CPUS))),
        mem=values.get("mem"),
        parallel=parallel,
        extra=tuple(sorted(extra.items())),
        largest_node=partition.cpus if gpu is None else partition.gpus[gpu],
    )


def _check_names(names: Mapping[str, str]) -> None:
    allowed = commands.sbatch_parameters() - SET_BY_US
    for name in names:
        if name in SET_BY_US:
            raise OptionError(
                f"slurm {name}: every job sets it itself. Allowed: {', '.join(OURS)}, and the "
                "other parameters of sbatch.",
                setting=SETTING,
            )
        if name not in allowed:
            raise OptionError(
                f"slurm {name}: sbatch has no such parameter.{nearest(name, [*OURS, *allowed])} "
                f"Allowed: {', '.join(OURS)}, and the parameters that `sbatch --help` lists.",
                setting=SETTING,
            )


def _partition(name: str | None, known: Sequence[Partition]) -> Partition:
    found = next((one for one in known if one.name == name or (not name and one.is_default)), None)
    if found is None:
        names = [one.name for one in known]
        what = f"unknown partition {name!r}.{nearest(name, names)}" if name else "no partition:"
        what += "" if name else " this Slurm has no default one, so name one."
        raise OptionError(
            f"slurm partition: {what} Allowed: {', '.join(names) or 'none'}.", setting=SETTING
        )
    return found


def _minutes(text: str | None, partition: Partition) -> int:
    if text is None:
        return partition.default_minutes or partition.most_minutes or LONGEST_MINUTES
    try:
        seconds = parse_timeout(text, f"{SETTING} time") or 0.0
    except OptionError as error:
        raise OptionError(str(error), setting=SETTING) from None
    minutes = round(seconds / 60)
    if minutes < LEAST_MINUTES:
        raise OptionError(
            f"slurm time {text!r}: allowed is {LEAST_MINUTES} min or more, since Slurm tells a job "
            "that its time is over up to 90 s early.",
            setting=SETTING,
        )
    most = partition.most_minutes
    if most is not None and minutes > most:
        raise OptionError(
            f"slurm time {text!r}: partition {partition.name!r} allows at most {most} min. "
            "Give less: a run that needs longer resumes from its last epoch in a further job.",
            setting=SETTING,
        )
    return minutes


def _gpu(name: str | None, partition: Partition) -> str | None:
    """Return the type of GPU to ask for; None for a CPU."""
    if name == NO_GPU or (name is None and not partition.gpus):
        return None
    kinds = sorted(partition.gpus)
    if name is None and len(kinds) == 1:
        return kinds[0]
    listed = ", ".join([*filter(None, kinds), NO_GPU])
    if name is None:
        raise OptionError(
            f"slurm gpu: partition {partition.name!r} has GPUs of several types, and one "
            f"comparison uses one type. Give one. Allowed: {listed}.",
            setting=SETTING,
        )
    if name not in kinds:
        raise OptionError(
            f"slurm gpu: partition {partition.name!r} has no GPU of type {name!r}."
            f"{nearest(name, kinds)} Allowed: {listed}.",
            setting=SETTING,
        )
    return name


def _cpus(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise OptionError(
            f"slurm cpus {text!r} should be a whole number of CPU cores for each run, 1 or more.",
            setting=SETTING,
        )
    return int(text)
