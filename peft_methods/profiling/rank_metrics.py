"""The measurements of a run's ranks as those of the run. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PEAK, LEAST = "peak_memory_bytes", "least_peak_memory_bytes"
SUMMED = ("energy_joules",)
HIGHEST = ("thermal_slowdown_seconds",)
OF_FIRST = ("step_median_seconds", "step_p95_seconds", "busy_share")

Metrics = Mapping[str, float | None]


def of_all_ranks(own: Metrics) -> dict[str, float | None]:
    """Return the metrics of a run from those of each rank; on one GPU they are the same.

    Energy is summed. Memory is that of the rank with the highest peak, so that its parts add up.
    Steps are those of rank 0: no rank is ahead of another.
    """
    from peft_methods.models import ranks

    if ranks.count() == 1:
        return dict(own)
    return combined(ranks.gathered(dict(own)))


def combined(every: Sequence[Metrics]) -> dict[str, float | None]:
    """Return the metrics of a run from those of its ranks."""
    fullest = max(every, key=lambda one: one[PEAK] or 0)
    found = {**fullest, **{name: every[0][name] for name in OF_FIRST}}
    for names, join in ((SUMMED, sum), (HIGHEST, max)):
        found |= {name: _joined(every, name, join) for name in names}
    return found | {LEAST: _joined(every, PEAK, min)}


def _joined(every: Sequence[Metrics], name: str, join: Any) -> float | None:
    """Return the values of all ranks joined; None if one is missing."""
    values = [one[name] for one in every]
    return None if None in values else join(values)


def environment_of_ranks(memory: Metrics, gpu: Any) -> dict[str, Any]:
    """Return the peak memory and the GPU's state of every rank; nothing for one GPU."""
    from peft_methods.models import ranks

    if ranks.count() == 1:
        return {}
    return {"ranks": ranks.gathered({PEAK: memory[PEAK], "gpu": gpu})}
