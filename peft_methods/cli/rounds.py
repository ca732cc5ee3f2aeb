"""The rounds of a benchmark: pytest-benchmark gets the training time of every seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft_methods.runs.record import Record


class TrainingClock:
    """The timer of one benchmark. It advances only by the training time of its runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the seconds of training so far."""
        return self.now

    def __repr__(self) -> str:
        return "peft_methods.TrainingClock"


def record_rounds(
    node: Any, benchmark: Any, records: list[Record], extra_info: dict[str, Any]
) -> None:
    """Give pytest-benchmark one round per record, and `extra_info` for its JSON."""
    clock: TrainingClock = node.get_closest_marker("benchmark").kwargs["timer"]
    times = iter(records)

    def one_round() -> None:
        record = next(times, None)
        clock.now += (record.metrics["train_seconds"] or 0.0) if record else 0.0

    benchmark.extra_info.update(extra_info)
    benchmark.pedantic(one_round, rounds=len(records), iterations=1)
