"""What an estimate says: intervals, the parts of the memory peak, and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["yes", "no", "unsure"]
Basis = Literal["probe", "datasheet", "records"]


@dataclass(frozen=True)
class Interval:
    """An expected value, and the range meant to hold the measured one in 95 % of runs."""

    low: float
    expected: float
    high: float

    def __contains__(self, measured: float) -> bool:
        return self.low <= measured <= self.high


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of a run on a GPU, in bytes.

    `phases` has the allocated peaks of "load", "train" and "evaluate". `parts` sum to that of
    "train": weights, gradients, optimizer_state, activations, workspace, rounding. `reserved` is
    what torch takes from the driver, and `device` that with the CUDA context and the libraries.
    """

    phases: Mapping[str, int]
    parts: Mapping[str, int]
    allocated: Interval
    reserved: Interval
    device: Interval

    @property
    def peak(self) -> int:
        """The allocated peak of training, which records call `peak_memory_bytes`."""
        return self.phases["train"]


@dataclass(frozen=True)
class TimeEstimate:
    """Time and energy of a run. Seconds are those of training alone, without evaluations.

    `basis` says where the device's rates come from. `energy` is in joules, None where unknown.
    """

    step_seconds: Interval
    epoch_seconds: Interval
    train_seconds: Interval
    energy: Interval | None
    basis: Basis


@dataclass(frozen=True)
class Way:
    """A change that makes a run fit, and its price.

    `what` is for people. `settings` are fields of the recipe as KEY=VALUE, and `method` names the
    method that takes its place, if one does. `needed_bytes` is what the GPU must have then.
    `time_ratio` is the training time over that without the change; where the rates of the GPU are
    unknown (`by_flops`), it is the ratio of the FLOPs.
    """

    what: str
    needed_bytes: float
    settings: tuple[str, ...] = ()
    method: str = ""
    time_ratio: float | None = None
    by_flops: bool = False


@dataclass(frozen=True)
class Fit:
    """Whether a run fits into a GPU with `limit_bytes`, and the largest one that does.

    `verdict` is "yes" if the upper end of the interval fits, "no" if the lower end does not, and
    "unsure" otherwise. `largest_batch` is the largest batch at the same length, and
    `largest_length` the longest row at the same batch; 0 if not even one row or token fits. The
    search ended at `most_batch` and `most_length`. `ways` make it fit, the fastest first; there
    are none for a run that fits.
    """

    limit_bytes: int
    verdict: Verdict
    largest_batch: int
    largest_length: int
    most_batch: int
    most_length: int
    ways: tuple[Way, ...] = ()


@dataclass(frozen=True)
class MethodEstimate:
    """The estimate for one method: sizes in parameters and bytes, memory and time.

    `time` is None for a device whose rates are unknown, and `fit` if no GPU or size was given.
    `explanations` has sentences on what may surprise, by rule. `problem` says why there is no
    estimate; everything else is then None or 0.
    """

    method: str
    title: str
    batch_size: int
    length: int
    trainable: int = 0
    total: int = 0
    checkpoint_bytes: int = 0
    memory: MemoryEstimate | None = None
    time: TimeEstimate | None = None
    fit: Fit | None = None
    problem: str = ""
    explanations: Mapping[str, str] = field(default_factory=dict)
