"""How an experiment is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from peft_methods.runs.executors.base import Request
from peft_methods.runs.executors.registry import LOCAL, SLURM
from peft_methods.runs.limits import DEFAULT_ISOLATION, DEFAULT_RETRIES
from peft_methods.runs.predicted import Limits

DEFAULT_RESULTS = Path(".peft/results")


@dataclass(frozen=True)
class ExperimentOptions:
    """How an experiment is run. Nothing here changes what a run computes.

    `timeout` is in seconds a run; `trials` a method are tuned first; `fresh` trains everything
    again; `checkpoint` saves every epoch; `trackers` are names of experiment trackers; `executor`
    is the name of the executor that runs go through, and `request` what it asks of a cluster.
    `adding_seconds` is the time after which no further seeds are added. `devices` are the UUIDs of
    the GPUs to use; by default all of a kind. `isolation` is FRESH for a process each, WARM if
    runs may follow one another in a process that each of them leaves clean. A `dry_run` trains
    nothing: it needs no weights of any model. Runs that would exceed a limit of `fit` are skipped.
    With `no_estimates` finished runs are not estimated.
    """

    results: Path = DEFAULT_RESULTS
    save_models: Path | None = None
    workers: int | None = None
    devices: tuple[str, ...] = ()
    trials: int | None = None
    fresh: bool = False
    timeout: float | None = None
    retries: int = DEFAULT_RETRIES
    checkpoint: bool = False
    trackers: tuple[str, ...] = ()
    executor: str = LOCAL
    request: Request | None = None
    adding_seconds: float | None = None
    isolation: str = DEFAULT_ISOLATION
    dry_run: bool = False
    fit: Limits = field(default_factory=dict)
    no_estimates: bool = False

    @property
    def predicts(self) -> bool:
        """Whether the cost is predicted before the runs, which takes time: for plans and limits."""
        return self.dry_run or bool(self.fit)

    @property
    def nodes(self) -> str | None:
        """Describe the machines of runs: '' for this one, None if the next session has others."""
        if self.executor == LOCAL:
            return ""
        return repr(self.request) if self.executor == SLURM else None
