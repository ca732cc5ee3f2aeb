"""Records: the results of each run, or why it has none."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, InstanceOf

from peft_methods.runs.migrations import migrate_record
from peft_methods.runs.predicted import Prediction, quoted_in_advice
from peft_methods.runs.seed_plan import SeedPlan
from peft_methods.runs.spec import Role, RunSpec
from peft_methods.training.evidence import Evidence
from peft_methods.utils import sanitize
from peft_methods.utils.validation import adapter

SCHEMA_VERSION = 3
Status = Literal["ok", "oom", "failed", "timeout", "crashed", "skipped"]


@dataclass(frozen=True)
class Record:
    """The outcome of one run.

    `fingerprint` identifies the run and names its files; a run without results has a unique one.

    `metrics` are raw values in base units, named as in METRICS; a missing value is None. `epochs`
    is the training curve. `quality` holds precision, recall and F1 per class and the confusion
    matrix of the test set. With random weights there is no quality, nor any validation value in the
    curve.

    `data` and `environment` describe the training data and the machine. `tuning` describes the
    search for hyperparameters; None means that the recipe's own were used. `seed_plan` is set if
    the session adds seeds until the comparison is decided. `predicted` is the estimate of the cost,
    made before the run or after it; None without one. `attempts` describes how
    earlier attempts at the run ended. `stack` holds the stacks of a stuck or crashed process, with
    paths that start at the package.

    `files` maps the suffix of each file beside the record (predictions; the trained weights of a
    prerequisite run) to its SHA-256. `reused` marks a record of an earlier session and is never
    written.

    Records get published, so tokens and passwords are removed from every text, and the user's home
    is replaced by `~`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    spec: InstanceOf[RunSpec]
    status: Status
    fingerprint: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    message: str = ""
    metrics: dict[str, float | None] = field(default_factory=dict)
    epochs: tuple[dict[str, float | None], ...] = ()
    best_epoch: int | None = None
    quality: dict[str, Any] | None = None
    evidence: Evidence = field(default_factory=Evidence)
    data: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] | None = None
    seed_plan: SeedPlan | None = None
    predicted: Prediction | None = None
    attempts: tuple[str, ...] = ()
    stack: str = ""
    finished: float = field(default_factory=time.time)
    files: dict[str, str] = field(default_factory=dict, compare=False)
    reused: bool = field(default=False, compare=False)
    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.spec.recorded())
        names = ("spec", "message", "quality", "data", "environment", "tuning", "attempts", "stack")
        if sanitize.may_tell([getattr(self, name) for name in names]):
            for name in names:
                object.__setattr__(self, name, sanitize.private(getattr(self, name)))

    @property
    def recipe_name(self) -> str:
        """The recipe's name."""
        return self.spec.recipe.name

    @property
    def method_name(self) -> str:
        """The method's name."""
        return self.spec.method.name

    @property
    def key(self) -> str:
        """The key of the run that this record belongs to, whatever its status."""
        return self.spec.key

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.spec.seed

    @property
    def role(self) -> Role:
        """Whether the run is compared, trained for its weights, or a trial."""
        return self.spec.role

    @property
    def rows_fingerprint(self) -> str | None:
        """The digest of the rows that all seeds share: all rows, unless seeds draw some of them.

        None for a run that never read them.
        """
        return self.data.get("test_fingerprint") or self.data.get("fingerprint")

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, in the current schema version."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "reused"}
        own: dict[str, Any] = {"spec": self.spec.to_json(), "evidence": asdict(self.evidence)}
        for name in ("seed_plan", "predicted"):
            found = getattr(self, name)
            own[name] = None if found is None else asdict(found)
        return values | own

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Rebuild a record from JSON values of this schema version or an earlier one.

        Raises `OptionError` for an unknown method or an invalid setting, and `KeyError`,
        `TypeError`, `AttributeError` or `ValueError` if the values are not those of a record.
        """
        current = migrate_record(values)
        spec = RunSpec.from_json(current["spec"])
        return adapter(Record).validate_python({**current, "spec": spec})


def record_without_result(run: RunSpec, status: Status, message: str, **more: Any) -> Record:
    """Create the record of a run without results, with the reason.

    Each attempt gets a unique name, since two sessions may fail at once.
    """
    fingerprint = f"{run.key}-{status}-{uuid.uuid4().hex[:8]}"
    if status == "oom" and run.predicted is not None:
        message = f"{message} {quoted_in_advice(run.predicted)}".strip()
    return Record(run, status, fingerprint, message, **beside_spec(run), **more)


def beside_spec(run: RunSpec) -> dict[str, Any]:
    """Return what a record keeps of a run beside its spec: how it was planned and predicted."""
    return {"seed_plan": run.seed_plan, "predicted": run.predicted}
