"""Which Ray cluster a session uses, and what it gives to each run."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.runs.executors.devices import DeviceSet, Resources, threads_per_run
from peft_methods.runs.executors.ray.cluster import Cluster, cluster_at
from peft_methods.runs.executors.ray.connection import AUTO
from peft_methods.utils.errors import OptionError

RUNS_A_NODE = 2  # of a CPU cluster: small models scale badly over threads


@dataclass(frozen=True)
class RayRequest:
    """The cluster at `address`, its nodes of one `kind`, and at most `workers` runs at a time.

    Without a `kind`, all nodes must be of the same; without `workers`, as many runs as fit.
    """

    address: str = AUTO
    workers: int | None = None
    kind: str | None = None

    def cluster(self) -> Cluster:
        """Connect to the cluster, once in a process. Raises `OptionError`."""
        return cluster_at(self.address, self.kind)

    @property
    def device(self) -> str:
        """Return 'cuda' or 'cpu', as a run's spec names its device."""
        return self.cluster().device

    @property
    def device_name(self) -> str:
        """Return the GPU's name, or 'cpu'. Baselines are stored under this name."""
        cluster = self.cluster()
        return "cpu" if cluster.device == "cpu" else cluster.kind.partition(" (")[0]

    @property
    def largest_node(self) -> int:
        """Return the largest number of GPUs that a node has; of CPU cores without GPUs."""
        cluster = self.cluster()
        name = "CPU" if cluster.device == "cpu" else "GPU"
        return max((int(node.get(name, 0)) for node in cluster.nodes().values()), default=0)

    def slots(self) -> tuple[DeviceSet, ...]:
        """Return one device set for each run that the cluster has room for now.

        Threads depend on the smallest node alone, so that a node more or less changes no run.
        """
        cluster = self.cluster()
        nodes = cluster.nodes().values()
        cores = int(min((node.get("CPU", 0) for node in nodes), default=1))
        if cluster.device == "cuda":
            gpus = int(max((node.get("GPU", 0) for node in nodes), default=1))
            one = DeviceSet(("gpu",), threads_per_run("cuda", max(1, cores // max(1, gpus)), 1))
        else:
            one = DeviceSet((), threads_per_run("cpu", cores, min(RUNS_A_NODE, max(1, cores))))
        places = cluster.places(one.resources)
        if not places:
            raise OptionError(
                f"no node of the Ray cluster has {in_words(one.resources)} for a run. Start nodes "
                "with more of them.",
                setting="ray_address",
            )
        return (one,) * min(places, self.workers or places)


def in_words(needs: Resources) -> str:
    """Return '2 GPUs and 1 CPU'."""
    gpus = f"{needs.gpus} GPU{'s' * (needs.gpus > 1)} and " if needs.gpus else ""
    return f"{gpus}{needs.threads} CPU{'s' * (needs.threads > 1)}"


def request_of(address: str | None, workers: int | None, kind: str | None) -> RayRequest:
    """Return a session's request. Raises `OptionError` unless the cluster can do it."""
    request = RayRequest(address or AUTO, workers, kind)
    request.slots()
    return request
