"""The `--peft-` options for executors of clusters."""

from __future__ import annotations

from typing import Any, Protocol


class OptionGroup(Protocol):
    """A group of options, such as pytest's `OptionGroup`."""

    def addoption(self, *opts: str, **attrs: Any) -> None:
        """Register an option."""


def add_clusters(group: OptionGroup) -> None:
    """Register the options for executors of clusters."""
    group.addoption(
        "--peft-ray-address",
        metavar="HOST:PORT",
        help="the Ray cluster for the executor ray (default: RAY_ADDRESS, else the cluster that "
        "this machine belongs to)",
    )
    group.addoption(
        "--peft-ray-kind",
        metavar="NAME",
        help="a part of the name of the GPU or CPU whose nodes are used, where a Ray cluster has "
        "several kinds",
    )
    group.addoption(
        "--peft-slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what each job of slurm asks for: partition, account, qos, time (2h), gpu (a type, or "
        "none), cpus, mem, and the other parameters of sbatch; several as a=1,b=2",
    )
    group.addoption(
        "--peft-detach",
        action="store_true",
        help="submit the jobs of slurm and end; the same command without this option collects them",
    )
