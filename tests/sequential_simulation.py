"""Jobs that add seeds until they are decided, on simulated answers of known methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm

from peft_methods.analysis.sequential import Decision, decide
from peft_methods.runs.seed_plan import SeedPlan

THREE_TO_TEN = SeedPlan(3, 10)


@dataclass(frozen=True)
class Job:
    """Methods of true `accuracies`; see `simulation.Setting` for `spreads` and the answers."""

    accuracies: tuple[float, ...]
    spreads: tuple[float, ...]
    plan: SeedPlan = THREE_TO_TEN
    rows: int = 1000
    margin: float = 0.01

    def __str__(self) -> str:
        shown = "/".join(f"{100 * one:g}" for one in sorted(set(self.accuracies)))
        spreads = "-".join(f"{one:g}" for one in sorted({min(self.spreads), max(self.spreads)}))
        return (
            f"{len(self.accuracies)} methods at {shown} %, spread {spreads}, "
            f"{self.plan.first} to {self.plan.most} seeds, {self.rows} rows, "
            f"margin {100 * self.margin:g}"
        )


def decisions(job: Job, repetitions: int, seed: int = 7) -> Iterator[Decision]:
    """Yield the decision of each repetition."""
    rng = np.random.default_rng(seed)
    for _ in range(repetitions):
        shared = rng.standard_normal(job.rows)
        scores = {}
        for index, (accuracy, spread) in enumerate(zip(job.accuracies, job.spreads, strict=True)):
            sigma = spread / 100 / norm.pdf(ndtri(0.8))
            level = ndtri(accuracy) * np.sqrt(1 + sigma**2)
            drawn = level + sigma * rng.standard_normal((job.plan.most, 1))
            own = rng.standard_normal(job.rows)
            chance = rng.standard_normal((job.plan.most, job.rows))
            difficulty = np.sqrt(0.45) * shared + np.sqrt(0.2) * own + np.sqrt(0.35) * chance
            scores[str(index)] = list((difficulty < drawn).astype(np.float64))
        yield decide(scores, job.plan, job.margin)


def is_wrong(decision: Decision, job: Job) -> bool:
    """Whether any pair has a verdict that the true accuracies contradict."""
    for pair in decision.pairs:
        true = job.accuracies[int(pair.first)] - job.accuracies[int(pair.second)]
        contradicted = {
            "better": true <= 0,
            "worse": true >= 0,
            "equal": abs(true) > job.margin + 1e-9,
            "undecided": False,
        }
        if contradicted[pair.verdict.split()[0]]:
            return True
    return False
