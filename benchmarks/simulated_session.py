"""A session of simulated runs on a large cluster, some of which fail in every way."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

from builders import make_record
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.progress.display import Lines
from peft_methods.runs.progress.progress import Progress
from peft_methods.runs.spec import RunSpec
from simulated_runs import Cluster, Fate, SimulatedRun, simulated, with_gpus

GPUS_OF_A_HOST = 8
NEEDS = {1: 0.94, 2: 0.05, 8: 0.01}  # the share of runs that need so many GPUs
WITH_PREREQUISITE, DISTANCE = 0.1, 5000  # which was submitted at most so many runs before
FATES: dict[tuple[Fate, ...], float] = {
    ("ok",): 0.94,
    ("killed", "ok"): 0.02,
    ("engine",): 0.013,
    ("passing",): 0.01,
    ("failed",): 0.01,
    ("crashed",): 0.005,
    ("hanging",): 0.002,
}
PREPARED = PreparedRecipe(
    {"class_counts": {"train": (80, 80), "validation": (15, 15), "test": (25, 25)}}, {}, 0.01, 1.0
)


class SimulatedSession:
    """Runs of 30 to 300 simulated seconds, each with five reports of progress."""

    def __init__(self, runs: int, gpus: int, folder: Path) -> None:
        rng, made = random.Random(0), list[SimulatedRun]()
        template = {gpus: with_gpus(make_record().spec, gpus) for gpus in NEEDS}
        for number in range(runs):
            has_one = number and rng.random() < WITH_PREREQUISITE
            earlier: tuple[RunSpec, ...] = ()
            if has_one:
                earlier = (made[rng.randrange(max(0, number - DISTANCE), number)].spec,)
            (needs,) = rng.choices(list(NEEDS), list(NEEDS.values()))
            (fates,) = rng.choices(list(FATES), list(FATES.values()))
            run = replace(template[needs], seed=number, prerequisites=earlier)
            made.append(SimulatedRun(run, rng.uniform(30, 300), fates))
        self.runs, self.statuses = [one.spec for one in made], Counter[str]()
        by_seed = dict(enumerate(made))
        self._cluster = Cluster(gpus // GPUS_OF_A_HOST, GPUS_OF_A_HOST, by_seed, reports=5)
        folder.mkdir()
        self._folder, self._gpus = folder, gpus

    def drive(self) -> None:
        """Run everything, with lines of progress as in a file."""
        scheduler = simulated(self._folder / "results", self._cluster, timeout=3600)
        with (self._folder / "progress.txt").open("w", encoding="utf-8") as lines:
            progress = Progress(Lines(lines.write), workers=self._gpus)
            scheduler.watch(progress)
            progress.plan(self.runs, PREPARED)
            scheduler.submit(self.runs)
            with progress.showing():
                records = scheduler.wait(self.runs)
        self.statuses = Counter(record.status for record in records)
        scheduler.close()
