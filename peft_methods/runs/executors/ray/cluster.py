"""The nodes of a Ray cluster that a session may use: same versions, one kind of GPU or CPU."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft_methods.profiling.environment import FINGERPRINT_PACKAGES, OPTIONAL_PACKAGES
from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.ray import probe
from peft_methods.runs.executors.ray.connection import connect, import_ray
from peft_methods.runs.executors.ray.probe import Facts
from peft_methods.utils.errors import OptionError, first_line

PACKAGE, DISTRIBUTION = "peft_methods", "peft-methods"
COMPARED = (*FINGERPRINT_PACKAGES, *OPTIONAL_PACKAGES, DISTRIBUTION)
PROBE_SECONDS = 60.0
REFRESH_SECONDS = 2.0
TRIES = 3  # a node that has just joined may refuse tasks
NODE_ID = "ray.io/node-id"  # the label that Ray gives every node


class Cluster:
    """The nodes that answer, have this session's versions, and are of its kind.

    `kind` is chosen by the user or is the only one. Nodes that join later are used if they fit;
    `warnings` names those that do not. Raises `OptionError` for a node with other versions, and
    for several kinds of which none is chosen.
    """

    def __init__(self, ray: Any, kind: str | None = None) -> None:
        self.warnings: list[str] = []
        self.ray, self._here = ray, Facts(**probe.facts(COMPARED, PACKAGE))
        self._facts: dict[str, Facts] = {}
        self._unanswered: Counter[str] = Counter()
        self._looked = 0.0
        alive = self._alive()
        self._facts |= self._probed(alive)
        if others := [line for one in self._facts.values() if (line := self._difference(one))]:
            raise OptionError(
                f"{others[0]}{_and_more(len(others) - 1)}. Install the same versions on every node "
                "and here, since results of different versions cannot be compared.",
                setting="executor",
            )
        self.kind = chosen_kind(self._facts.values(), kind)
        self._nodes = self._fitting(alive)

    @property
    def device(self) -> str:
        """'cuda' if the session's nodes have GPUs, else 'cpu'."""
        return "cuda" if any(self._facts[name].gpus for name in self._nodes) else "cpu"

    def nodes(self) -> dict[str, Mapping[str, float]]:
        """Return the resources of every node that the session may use, by id."""
        if time.monotonic() > self._looked + REFRESH_SECONDS:
            alive = self._alive()
            new = self._probed({name: alive[name] for name in alive.keys() - self._facts.keys()})
            self._facts |= new
            self.warnings += [
                f"{line}, so it is not used."
                for one in new.values()
                if (line := self._difference(one))
            ]
            self._nodes = self._fitting(alive)
        return self._nodes

    def capacity(self) -> Resources:
        """Return the GPUs and CPUs of all these nodes."""
        nodes = self.nodes().values()
        gpus, cpus = (sum(int(node.get(name, 0)) for node in nodes) for name in ("GPU", "CPU"))
        return Resources(gpus, cpus)

    def places(self, needs: Resources) -> int:
        """Return how many jobs with these needs fit at a time, each on one node."""
        return sum(_fitting_in(node, needs) for node in self.nodes().values())

    def selector(self) -> dict[str, str]:
        """Return the labels of a node that the session may use.

        Without spaces: Ray accepts them, and then no node has any name but the first.
        """
        return {NODE_ID: f"in({','.join(sorted(self.nodes()))})"}

    def _alive(self) -> dict[str, Mapping[str, float]]:
        self._looked = time.monotonic()
        nodes = {one["NodeID"]: one["Resources"] for one in self.ray.nodes() if one["Alive"]}
        return {name: has for name, has in nodes.items() if has.get("CPU") or has.get("GPU")}

    def _fitting(self, alive: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
        return {
            name: resources
            for name, resources in alive.items()
            if name in self._facts
            and self._facts[name].kind == self.kind
            and not self._difference(self._facts[name])
        }

    def _probed(self, names: Iterable[str]) -> dict[str, Facts]:
        """Ask nodes what they are. One that does not answer is asked again later."""
        ray = self.ray
        strategies = ray.util.scheduling_strategies
        ray.cloudpickle.register_pickle_by_value(probe)
        ask = ray.remote(probe.facts)
        asked = {
            ask.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(name, soft=False),
            ).remote(COMPARED, PACKAGE): name
            for name in names
        }
        if not asked:
            return {}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_SECONDS)
        found = {}
        for reference in ready:
            try:
                found[asked[reference]] = Facts(**ray.get(reference))
            except ray.exceptions.RayError as error:
                self._unanswered[asked[reference]] += 1
                if self._unanswered[asked[reference]] == TRIES:
                    self.warnings.append(
                        f"a node of the Ray cluster does not run tasks: {first_line(error)}"
                    )
        return found

    def _difference(self, node: Facts) -> str:
        return difference(self._here, node, COMPARED)


def cluster_at(address: str, kind: str | None) -> Cluster:
    """Connect to the cluster at this address, once. Raises `OptionError`."""
    ray = connect(address)
    return _cluster(ray.get_runtime_context().get_job_id(), kind)


@functools.cache
def _cluster(connection: str, kind: str | None) -> Cluster:
    """Look at the cluster's nodes once for each connection."""
    return Cluster(import_ray(), kind)


def _fitting_in(node: Mapping[str, float], needs: Resources) -> int:
    wanted = {"GPU": needs.gpus, "CPU": needs.threads}
    return min(int(node.get(name, 0) // count) for name, count in wanted.items() if count)


def difference(here: Facts, node: Facts, packages: Sequence[str]) -> str:
    """Describe how a node's versions differ from the session's, or ''."""
    for name in packages:
        if here.versions.get(name) != (there := node.versions.get(name)):
            known = here.versions.get(name) or "(missing)"
            return f"node {node.name} has {name} {there or '(missing)'}, the session {known}"
    if node.code != here.code:
        return f"node {node.name} has other source code of {DISTRIBUTION} than the session"
    return ""


def chosen_kind(nodes: Iterable[Facts], wanted: str | None) -> str:
    """Return the kind of device that the session uses. GPUs are preferred to CPUs."""
    nodes = list(nodes)
    with_gpus = [node for node in nodes if node.gpus]
    kinds = sorted({node.kind for node in with_gpus or nodes})
    if not kinds:
        raise OptionError(
            "no node of the Ray cluster answers. Look at `ray status`.", setting="ray_address"
        )
    fitting = [kind for kind in kinds if wanted is None or wanted.lower() in kind.lower()]
    if len(fitting) == 1:
        return fitting[0]
    problem = (
        "has several kinds of devices, whose times and memory cannot be compared"
        if wanted is None
        else f"has no single kind of device named {wanted!r}"
    )
    raise OptionError(
        f"the Ray cluster {problem}: {', '.join(kinds)}. Choose one by a part of its name.",
        setting="ray_kind",
    )


def _and_more(count: int) -> str:
    return f" ({count} more node{'s' * (count > 1)} differ{'s' * (count == 1)})" if count else ""
