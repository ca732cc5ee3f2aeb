"""Notes on runs over several GPUs: the memory of each, their communication, and how they scale."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from peft_methods.analysis.comparison import title_of
from peft_methods.profiling.metrics import METRICS
from peft_methods.profiling.rank_metrics import PEAK
from peft_methods.runs.record import Record
from peft_methods.runs.scaling import EFFICIENCY

COMMUNICATION = "communication_seconds"
NO_REFERENCE = "scaling efficiency unknown without a run on one GPU"


def several_gpus_notes(records: Iterable[Record]) -> list[str]:
    """Return one line for each method whose runs took several GPUs."""
    rows: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.status == "ok" and record.role == "main" and record.spec.recipe.budget.gpus > 1:
            rows.setdefault((record.recipe_name, record.method_name), []).append(record)
    return [_line(found) for found in rows.values()]


def _line(records: Sequence[Record]) -> str:
    budget = records[0].spec.recipe.budget
    peaks = [[rank[PEAK] for rank in one.environment.get("ranks", ())] for one in records]
    of_ranks = [max(values) for values in zip(*peaks, strict=True)]
    parts = ["peak memory of each " + " / ".join(METRICS[PEAK].format(one) for one in of_ranks)]
    if (seconds := _median(records, COMMUNICATION)) is not None:
        parts.append(f"communication {METRICS[COMMUNICATION].format(seconds)} a step")
    efficiency = _median(records, EFFICIENCY)
    parts.append(
        NO_REFERENCE
        if efficiency is None
        else f"scaling efficiency {METRICS[EFFICIENCY].format(efficiency)}"
    )
    title = title_of(records[0].method_name)
    kind = "GPUs" if records[0].spec.device.startswith("cuda") else "processes of the CPU"
    return f"{title} on {budget.gpus} {kind} ({budget.strategy}): {'; '.join(parts)}."


def _median(records: Sequence[Record], name: str) -> float | None:
    """Return the median of a metric; None if a run lacks it."""
    values = [record.metrics.get(name) for record in records]
    return None if None in values else statistics.median(v for v in values if v is not None)
