"""Jobs that a worker does, and the messages with which it answers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.executors.devices import NO_GPU, DeviceSet, Resources
from peft_methods.runs.limits import FRESH, WARM
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec


@dataclass(frozen=True)
class PrepareJob:
    """A job that reads and checks a recipe's data and model.

    The executor fills in `devices`, which have what the job `needs`. `environment` and `directory`
    are those of the session. `without_weights`: for a dry run, which needs the model's config only.
    `engines` train the runs whose cost is predicted too, by method; {} for no predictions.
    """

    recipe: Recipe
    methods: tuple[Method, ...]
    device: str
    log: Path
    needs: Resources
    devices: DeviceSet = NO_GPU
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = field(default_factory=os.getcwd, kw_only=True)
    without_weights: bool = field(default=False, kw_only=True)
    engines: dict[str, str] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class RunJob:
    """A job that trains one run on `devices`, which the executor fills in, and stores its record.

    The devices have what the job `needs`. With `checkpoint`, each epoch's state is saved, and
    training resumes where an earlier process was killed. `attempts` describes how earlier attempts
    ended. With the `isolation` WARM an executor may have a process do several runs, as long as each
    leaves it clean.
    """

    run: RunSpec
    work: Path
    prerequisites: tuple[Path, ...]
    prerequisite_seconds: float | None
    save_to: Path | None
    store: Path
    log: Path
    needs: Resources
    devices: DeviceSet = NO_GPU
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = field(default_factory=os.getcwd, kw_only=True)
    engine_note: str = ""
    prerequisite_fingerprints: tuple[str, ...] = ()
    attempts: tuple[str, ...] = ()
    checkpoint: bool = False
    isolation: str = FRESH

    @property
    def name(self) -> str:
        """The run's key and engine: identifies the job while it is prefetched."""
        return job_name(self.run)

    @property
    def may_share_process(self) -> bool:
        """Whether its process may do other runs too. Those on several GPUs start their own."""
        return self.isolation == WARM and self.run.recipe.budget.gpus == 1

    @property
    def is_first_attempt(self) -> bool:
        """Whether this is the run's first process in this session, with any engine."""
        return not self.attempts and not self.engine_note


def job_name(run: RunSpec) -> str:
    """Return the name of a run's job."""
    return f"{run.key}-{run.engine}"


@dataclass(frozen=True)
class Beside:
    """What else happens beside a run: the number of runs at a time.

    `turn` is the path of the lock that a run holds while it trains; empty if all train at once.
    """

    runs: int = 1
    turn: str = ""


@dataclass(frozen=True)
class StartSignal:
    """The signal that it is a run's turn, with what is known about the device by then.

    `stays`: if the run leaves its process clean, the process waits for another one.
    """

    matmul_flops_per_second: float | None = None
    beside: Beside = Beside()
    stays: bool = False


@dataclass(frozen=True)
class Failure:
    """A job that failed.

    `by_user` marks a user's mistake, whose message is complete. All other errors are ours.
    `setting` names the setting to change, as in `PeftMethodsError`. `gpu_failure` says how the GPU
    failed, if that is the cause. `status` is that of its record, or "engine" if another engine may
    succeed.
    """

    message: str
    by_user: bool
    may_pass: bool = False
    setting: str = ""
    gpu_failure: str = ""
    status: Literal["failed", "oom", "crashed", "engine"] = "failed"


@dataclass(frozen=True)
class EngineFailed:
    """The run's engine cannot run it. Another engine may, in a fresh process."""

    reason: str


@dataclass(frozen=True)
class Done:
    """The result of a job; `not_stored` is the reason if the record could not be written.

    A failure that `may_pass` is not written: the parent decides whether to retry. `gpu_failure`
    says how the GPU failed, if that is the cause. `is_clean`: the process waits for another run,
    since this one left it as it was.
    """

    result: Record | PreparedRecipe | Failure | EngineFailed
    not_stored: str = ""
    may_pass: bool = False
    gpu_failure: str = ""
    is_clean: bool = False
