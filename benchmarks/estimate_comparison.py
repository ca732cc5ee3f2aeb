"""Compare predictions with measurements: `python benchmarks/estimate_comparison.py`."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from estimate_cases import Case
from estimate_files import FOLDER, Stored, case_of, predictions

from peft_methods.estimation.fitting import verdict_of
from peft_methods.estimation.results import Interval, MemoryEstimate
from peft_methods.profiling.metrics import MEMORY_PARTS

MIB = 2**20
WORST = 15  # cases that are shown with their parts
HARD = 10  # cases whose verdict was wrong that are shown


@dataclass(frozen=True)
class Compared:
    """A case with its prediction and what was measured. Errors are shares of the measured value."""

    case: Case
    predicted: Mapping[str, Any]
    measured: Mapping[str, Any]

    @property
    def peak_bytes(self) -> float:
        """The measured peak, without what earlier cases have left on the device."""
        found: Mapping[str, float] = self.measured["memory"]
        return found["peak_memory_bytes"] - (self.measured["memory_before_bytes"] or 0)

    @property
    def expected_bytes(self) -> float:
        """The predicted peak."""
        return float(self.predicted["memory"]["phases"]["train"])

    @property
    def error(self) -> float:
        """How much the predicted peak is above the measured one; below 0 it is too low."""
        return self.expected_bytes / self.peak_bytes - 1

    @property
    def is_held(self) -> bool:
        """Whether the range of the peak holds the measured one."""
        return self.peak_bytes in Interval(**self.predicted["memory"]["allocated"])

    def holds(self, kind: str) -> bool | None:
        """Whether the range of "reserved" or "device" holds the measured bytes; None without."""
        found = self.highest(kind)
        return None if found is None else found in Interval(**self.predicted["memory"][kind])

    def highest(self, kind: str) -> float | None:
        """Return the most bytes of this kind in training and evaluation; None if unknown."""
        own = (f"train_{kind}_bytes", f"evaluate_{kind}_bytes", f"engine_{kind}_bytes")
        found = [self.measured["memory"][name] for name in own if name in self.measured["memory"]]
        return max(found, default=None)

    @property
    def time_error(self) -> float | None:
        """How much longer the predicted step is than the median one; None without any step."""
        seconds = self.measured.get("step_seconds")
        if not seconds:
            return None
        return self.predicted["step_seconds"]["expected"] / statistics.median(seconds) - 1

    @property
    def time_is_held(self) -> bool | None:
        """Whether the range of the step's seconds holds the median one."""
        seconds = self.measured.get("step_seconds")
        if not seconds:
            return None
        return statistics.median(seconds) in Interval(**self.predicted["step_seconds"])

    def parts(self) -> dict[str, tuple[float, float]]:
        """Return the predicted and the measured bytes of each part of the peak."""
        own, found = self.predicted["memory"]["parts"], self.measured["memory"]
        known = [name for name in MEMORY_PARTS if f"{name}_bytes" in found and name in own]
        return {name: (own[name], found[f"{name}_bytes"]) for name in known}


@dataclass(frozen=True)
class Verdict:
    """Whether a run was predicted to fit within a limit of memory, and whether it did.

    `said` is "yes", "no" or "unsure"; `limit` is in bytes.
    """

    case: Case
    limit: int
    said: str
    fitted: bool


def compared(
    predicted: Mapping[str, Mapping[str, Any]], measured: Mapping[str, Mapping[str, Any]]
) -> list[Compared]:
    """Return the cases that were predicted and whose peak was measured."""
    return [
        Compared(case_of(value), predicted[key], value)
        for key, value in measured.items()
        if "peak_memory_bytes" in value.get("memory", {})
        and value["status"] != "oom"
        and "memory" in predicted.get(key, {})
    ]


def verdicts(
    predicted: Mapping[str, Mapping[str, Any]], measured: Mapping[str, Mapping[str, Any]]
) -> list[Verdict]:
    """Return what the estimator says of each limit that was tried.

    A GPU that has this limit for torch has the measured context beside it.
    """
    found = []
    for key, value in measured.items():
        runs = value.get("runs", [])
        if not runs or not runs[0]["fitted"] or "memory" not in predicted.get(key, {}):
            continue
        memory = _memory(predicted[key]["memory"])
        beside = memory.device.expected - memory.reserved.expected
        if runs[0]["device_bytes"] is not None:
            beside = runs[0]["device_bytes"] - runs[0]["reserved_bytes"]
        found += [
            Verdict(
                case_of(value),
                run["limit"],
                verdict_of(memory, run["limit"] + beside),
                run["fitted"],
            )
            for run in runs
            if run["limit"] is not None
        ]
    return found


def _memory(stored: Mapping[str, Any]) -> MemoryEstimate:
    ranges = {name: Interval(**stored[name]) for name in ("allocated", "reserved", "device")}
    return MemoryEstimate(phases=stored["phases"], parts=stored["parts"], **ranges)


def print_comparison(rows: Sequence[Compared]) -> None:
    """Print errors of peaks and times, in all and by setting, and the worst cases."""
    if not rows:
        print("Nothing to compare.")
        return
    print(_line("all", rows))
    settings: Mapping[str, Callable[[Case], object]] = {
        "architecture": lambda case: case.architecture,
        "precision": lambda case: case.precision,
        "checkpointing": lambda case: case.checkpointing,
        "shape": lambda case: f"{case.rows}x{case.tokens}",
        "method": lambda case: case.method,
    }
    for name, value in settings.items():
        print(f"\nBy {name}:")
        for one in sorted({value(row.case) for row in rows}, key=str):
            print(_line(str(one), [row for row in rows if value(row.case) == one]))
    print(f"\nThe {WORST} worst peaks (MiB, predicted and measured):")
    for row in sorted(rows, key=lambda row: -abs(row.error))[:WORST]:
        parts = ", ".join(
            f"{name} {own / MIB:,.1f}/{found / MIB:,.1f}"
            for name, (own, found) in row.parts().items()
        )
        print(
            f"  {row.error:+7.2%} {row.case.key}: {row.expected_bytes / MIB:,.1f}/"
            f"{row.peak_bytes / MIB:,.1f} ({parts})"
        )


def _line(name: str, rows: Sequence[Compared]) -> str:
    errors = [row.error for row in rows]
    times = [row.time_error for row in rows if row.time_error is not None]
    words = [
        f"{name:26} {len(rows):4} peaks: median {np.median(np.abs(errors)):6.2%}, "
        f"95 % {np.quantile(np.abs(errors), 0.95):6.2%}, lowest {min(errors):+7.2%}",
        f"in range {share(row.is_held for row in rows)}",
        f"reserved {share(row.holds('reserved') for row in rows)}",
        f"driver's {share(row.holds('device') for row in rows)}",
    ]
    if times:
        size = np.abs(times)
        words += [
            f"steps median {np.median(size):4.0%}, 90 % {np.quantile(size, 0.9):4.0%}",
            f"in range {share(row.time_is_held for row in rows)}",
        ]
    return "; ".join(words)


def share(found: Iterable[bool | None]) -> str:
    """Return the share of those that are true, of those that are known, in words."""
    known = [one for one in found if one is not None]
    return f"{sum(known) / len(known):.0%} of {len(known)}" if known else "unknown"


def print_verdicts(found: Sequence[Verdict]) -> None:
    """Print how often each answer was given and right, and the wrong ones."""
    counts = Counter((one.said, one.fitted) for one in found)
    print(f"\n{len(found)} limits of memory (said: fitted, did not fit):")
    for said in ("yes", "no", "unsure"):
        print(f"  {said:6} {counts[said, True]:4} {counts[said, False]:4}")
    for one in wrong(found)[:HARD]:
        print(f"  said {one.said}: {one.case.key} with {one.limit / MIB:,.0f} MiB")


def wrong(found: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts that were wrong."""
    return [one for one in found if one.said == ("no" if one.fitted else "yes")]


def stored_results() -> list[Path]:
    """Return the folders of the devices that have measurements."""
    return sorted(path.parent for path in FOLDER.glob("*/grid.json"))


def main() -> None:
    """Print the comparison for every device that has measurements."""
    predicted = predictions().values
    for folder in stored_results():
        measured = Stored(folder / "grid.json").values
        rows = compared(predicted, measured)
        print(f"# {folder.name}: {dict(Counter(one['status'] for one in measured.values()))}")
        for engine in sorted({row.case.engine for row in rows}):
            print(f"\n## {engine}\n")
            print_comparison([row for row in rows if row.case.engine == engine])
        print_verdicts(verdicts(predicted, Stored(folder / "capped.json").values))


if __name__ == "__main__":
    main()
