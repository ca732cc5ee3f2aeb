"""How near the scheduler comes to an ideal one on many GPUs, with run times that were measured.

The cluster is simulated: nothing is trained, and GPUs do not slow one another down.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builders import make_record
from peft_methods.runs.spec import RunSpec
from simulated_runs import Cluster, SimulatedRun, simulated

BASELINE = Path(__file__).parents[2] / "benchmarks/baselines/nvidia-h100-80gb-hbm3/imdb_mpnet.json"
SEEDS = 10
PHASES = ("data", "load", "tokenize", "warm_up", "capture", "train", "evaluate", "save", "check")
SOURCES = 2  # runs that are trained before AdapterFusion, each a training of its adapter


def measured_seconds() -> dict[str, list[float]]:
    """Return the seconds of each stored run by method: those of its phases, together."""
    found = {}
    for one in json.loads(BASELINE.read_text(encoding="utf-8"))["benchmarks"]:
        metrics = one["extra_info"]["metrics"]
        found[one["extra_info"]["method"]] = [
            sum(seconds) for seconds in zip(*(metrics[f"{p}_seconds"] for p in PHASES), strict=True)
        ]
    return found


class Session:
    """Every method with ten seeds, in the order of a session: the longest methods first."""

    def __init__(self) -> None:
        self.runs: list[SimulatedRun] = []
        self._template, measured = make_record().spec, measured_seconds()
        source = min(measured["adapter"])
        longest = max(max(seconds) for seconds in measured.values())
        self.least = max(longest, source + max(measured["adapter_fusion"]))
        for method in sorted(measured, key=lambda name: -sum(measured[name])):
            mixes = method == "adapter_fusion"
            earlier = tuple(self._add(source) for _ in range(SOURCES if mixes else 0))
            for seed in range(SEEDS):
                first, *later = measured[method]  # the first seed compiles what later ones find
                self._add(later[seed % len(later)] if seed else first, earlier)

    def _add(self, seconds: float, earlier: tuple[RunSpec, ...] = ()) -> RunSpec:
        run = replace(self._template, seed=len(self.runs), prerequisites=earlier)
        self.runs.append(SimulatedRun(run, seconds))
        return run

    def seconds(self, gpus: int, folder: Path) -> float:
        """Return the seconds of the whole session on one host with so many GPUs."""
        by_seed = {one.spec.seed: one for one in self.runs}
        cluster = Cluster(1, gpus, by_seed)
        scheduler = simulated(folder, cluster)
        specs = [one.spec for one in self.runs]
        scheduler.submit(specs)
        assert all(record.status == "ok" for record in scheduler.wait(specs))
        scheduler.close()
        return cluster.time


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_many_gpus_are_within_five_percent_of_the_ideal(gpus: int, tmp_path: Path) -> None:
    session = Session()
    one, many = session.seconds(1, tmp_path / "one"), session.seconds(gpus, tmp_path / "many")
    total = sum(run.seconds for run in session.runs)
    assert one == pytest.approx(total)
    ideal = max(total / gpus, session.least)  # seconds; no schedule is shorter
    print(f"{gpus} GPUs: {many:.0f} s of {one:.0f} s, {one / many:.2f}x, {ideal / many:.1%}")
    assert ideal / many >= 0.95
