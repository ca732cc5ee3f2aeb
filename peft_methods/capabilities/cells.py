"""A cell of the matrix, and the result of its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Status = Literal["passed", "failed", "unsupported"]
Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

# The checks of a cell, with their titles, in the order in which they are made.
CHECKS: Mapping[str, str] = {
    "count": "trainable parameters are as many as the closed form says",
    "start": "the outputs start as the base model's, within the method's tolerance",
    "trains": "the loss falls by 2% in three epochs, and every trained weight moves",
    "head": "the head is trained",
    "frozen": "frozen weights stay the same to the bit",
    "checkpointing": "activation checkpointing gives the same gradients",
    "repeat": "a second run gives the same bits",
    "engines": (
        "all engines give the same loss in each step, within rounding, from slightly moved "
        "weights, without dropout"
    ),
    "merge": "the merged model gives the same predictions",
    "reload": "the saved model gives the same predictions in another process",
}
RELOAD = "reload"
# How far two computations of the same outputs may be apart, relative to the largest.
ROUNDING: Mapping[Precision, float] = {"fp32": 1e-5, "bf16": 2.0**-5}


@dataclass(frozen=True, order=True)
class Cell:
    """One combination: a tiny model of the family is trained with the method on the task.

    `precision` is that of the arithmetic. Which format the frozen weights have is a property of the
    method (`MethodInfo.quantization`).
    """

    method: str
    family: str
    task: str
    precision: Precision = "fp32"
    checkpointing: bool = False

    @property
    def name(self) -> str:
        """The name in the stored file and in messages."""
        last = "checkpointed" if self.checkpointing else "plain"
        return "/".join((self.method, self.family, self.task, self.precision, last))

    @classmethod
    def named(cls, name: str) -> Cell:
        """Parse a name. Raises `ValueError`."""
        method, family, task, precision, last = name.split("/")
        if precision not in PRECISIONS or last not in {"plain", "checkpointed"}:
            raise ValueError(f"{name!r} is not the name of a cell")
        return cls(method, family, task, precision, last == "checkpointed")


@dataclass(frozen=True)
class Result:
    """What the checks of a cell found.

    `passed` lists checks, `failed` has the reason of each other one, and `unneeded` why a check
    does not apply. `reason` says why the combination is unsupported. `key` identifies the code and
    the versions that were measured. An `unusable` process must not measure another cell.
    """

    passed: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    unneeded: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    key: str = ""
    seconds: float = 0.0
    unusable: bool = field(default=False, compare=False)

    @property
    def status(self) -> Status:
        """Whether the combination is supported, and all its checks passed."""
        if self.failed:
            return "failed"
        return "passed" if self.passed else "unsupported"

    @property
    def waits_for_reload(self) -> bool:
        """Whether the trained model was saved, for another process to load."""
        return RELOAD in self.passed

    def with_reload(self, problem: str) -> Result:
        """Return the result with what the other process has found, empty if nothing is wrong."""
        if not problem:
            return self
        passed = tuple(name for name in self.passed if name != RELOAD)
        return replace(self, passed=passed, failed={**self.failed, RELOAD: problem})

    def without(self, folder: str) -> Result:
        """Return the result with shorter names of files in this folder."""
        failed, unneeded = (
            {check: reason.replace(folder, "…") for check, reason in reasons.items()}
            for reasons in (self.failed, self.unneeded)
        )
        return replace(self, failed=failed, unneeded=unneeded)

    def to_json(self) -> dict[str, Any]:
        """Return what is stored, without empty values."""
        values = {k: v for k, v in asdict(self).items() if v and k != "unusable"}
        return values | ({"passed": list(self.passed)} if self.passed else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Result:
        """Parse a stored result. Raises `TypeError` or `ValueError` for anything else."""
        found = cls(**{**values, "passed": tuple(values.get("passed", ()))})
        checks = {*found.passed, *dict(found.failed), *dict(found.unneeded)}
        if checks - CHECKS.keys() or not (checks or found.reason):
            raise ValueError(f"{sorted(checks)} are not the checks of a cell")
        return found
