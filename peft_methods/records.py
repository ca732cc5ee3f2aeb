"""Records: what each cell yielded, or why it did not."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from peft_methods import escaping
from peft_methods.cells import Cell, key_of

SCHEMA_VERSION = 1
Status = Literal["ok", "oom", "failed", "timeout", "crashed", "skipped"]


@dataclass(frozen=True)
class Evidence:
    """What the run itself found out about its weights, for the validity rules. Names of parameters.

    `expected_trainable` is the closed form for the method alone, None where there is none. `head_parameters` is the size of
    the head, trained or not; `quantized` counts the tensors held in 4 bits, `head_quantized` those of them in the head.
    """

    expected_trainable: int | None = None
    frozen_changed: tuple[str, ...] = ()
    unmoved: tuple[str, ...] = ()
    frozen_checked: int = 0
    moved_checked: int = 0
    head_parameters: int | None = None
    quantized: int | None = None
    head_quantized: int = 0


@dataclass(frozen=True)
class Record:
    """One cell's outcome. `metrics` hold raw figures in base units under the names of METRICS; missing is None.

    `epochs` is the curve; `quality` the test set's precision, recall and F1 per class and its confusion matrix
    (with random weights there is none, nor anything of validation in the curve);
    `data` and `environment` are what was trained on and where; `tuning` says how its hyperparameters were found (None: as
    the recipe gives them). `attempts` says how earlier attempts at the cell ended; `stack` is what each thread of a stuck or
    crashed process was doing, paths from the package on. `files` are what stands beside the record (predictions; a source's
    trained weights): sha256 by the ending of their names. `reused` says that an earlier run trained it; it is never written.
    Tokens and passwords are taken out of every text, and the user's home is `~`: records are published.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    cell: dict[str, Any]
    status: Status
    identity: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]  # it names files
    message: str = ""
    is_source: bool = False
    metrics: dict[str, float | None] = field(default_factory=dict)
    epochs: tuple[dict[str, float | None], ...] = ()
    best_epoch: int | None = None
    quality: dict[str, Any] | None = None
    evidence: Evidence = Evidence()
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
        names = ("cell", "message", "quality", "data", "environment", "tuning", "attempts", "stack")
        if escaping.may_tell([getattr(self, name) for name in names]):
            for name in names:
                object.__setattr__(self, name, escaping.private(getattr(self, name)))

    @property
    def recipe_name(self) -> str:
        """The recipe's name."""
        return str(self.cell["recipe"]["name"])

    @property
    def method_name(self) -> str:
        """The method's name."""
        return str(self.cell["method"]["name"])

    @property
    def key(self) -> str:
        """The key of the cell that this is the record of, whatever became of it."""
        return key_of(self.cell)

    @property
    def seed(self) -> int:
        """The cell's seed."""
        return int(self.cell["seed"])


def without_result(cell: Cell, status: Status, message: str, **more: Any) -> Record:
    """The record of a cell that yielded nothing, and why. Each attempt has a name of its own: two runs may fail at once."""
    return Record(
        cell.spec(),
        status,
        f"{cell.key}-{status}-{uuid.uuid4().hex[:8]}",
        message,
        cell.is_source,
        **more,
    )
