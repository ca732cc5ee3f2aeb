"""Records: the results of each run, or why it has none."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from peft_methods.runs.spec import RunSpec, run_key
from peft_methods.training.weight_checks import Evidence
from peft_methods.utils import sanitize

SCHEMA_VERSION = 1
Status = Literal["ok", "oom", "failed", "timeout", "crashed", "skipped"]


@dataclass(frozen=True)
class Record:
    """The outcome of one run.

    `metrics` are raw values in base units, named as in METRICS; a missing value is None. `epochs`
    is the training curve. `quality` holds precision, recall and F1 per class and the confusion
    matrix of the test set. With random weights there is no quality, nor any validation value in the
    curve.

    `data` and `environment` describe the training data and the machine. `tuning` describes the
    search for hyperparameters; None means that the recipe's own were used. `attempts` describes how
    earlier attempts at the run ended. `stack` holds the stacks of a stuck or crashed process, with
    paths that start at the package.

    `files` maps the suffix of each file beside the record (predictions; the trained weights of a
    prerequisite run) to its SHA-256. `reused` marks a record of an earlier session and is never
    written.

    Records get published, so tokens and passwords are removed from every text, and the user's home
    is replaced by `~`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    spec: dict[str, Any]
    status: Status
    identity: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]  # used in file names
    message: str = ""
    is_source: bool = False
    metrics: dict[str, float | None] = field(default_factory=dict)
    epochs: tuple[dict[str, float | None], ...] = ()
    best_epoch: int | None = None
    quality: dict[str, Any] | None = None
    evidence: Evidence = field(default_factory=Evidence)
    data: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] | None = None
    attempts: tuple[str, ...] = ()
    stack: str = ""
    finished: float = field(default_factory=time.time)
    files: dict[str, str] = field(default_factory=dict, compare=False)
    reused: bool = field(default=False, compare=False)
    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION

    def __post_init__(self) -> None:
        names = ("spec", "message", "quality", "data", "environment", "tuning", "attempts", "stack")
        if sanitize.may_tell([getattr(self, name) for name in names]):
            for name in names:
                object.__setattr__(self, name, sanitize.private(getattr(self, name)))

    @property
    def recipe_name(self) -> str:
        """The recipe's name."""
        return str(self.spec["recipe"]["name"])

    @property
    def method_name(self) -> str:
        """The method's name."""
        return str(self.spec["method"]["name"])

    @property
    def key(self) -> str:
        """The key of the run that this record belongs to, whatever its status."""
        return run_key(self.spec)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.spec["seed"])


def record_without_result(run: RunSpec, status: Status, message: str, **more: Any) -> Record:
    """Create the record of a run without results, with the reason.

    Each attempt gets a unique name, since two sessions may fail at once.
    """
    return Record(
        run.spec(),
        status,
        f"{run.key}-{status}-{uuid.uuid4().hex[:8]}",
        message,
        run.is_source,
        **more,
    )
