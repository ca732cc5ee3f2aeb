"""The cost tables (GPU only): step time, energy, memory and inference cost of each method."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.analysis.comparison import Row
from peft_methods.profiling.metrics import MEMORY_PARTS, METRICS
from peft_methods.report.formatting import MISSING
from peft_methods.report.text.layout import Layout

COST_COLUMNS = {
    "Step, median": "step_median_seconds",
    "p95": "step_p95_seconds",
    "MFU": "model_flops_utilization",
    "Energy": "energy_joules",
    "Latency": "latency_seconds",
    "merged": "merged_latency_seconds",
    "Inference": "inference_samples_per_second",
    "Reserved": "train_reserved_bytes",
    "Device": "train_device_bytes",
}
COST_NOTE = (
    "MFU: model FLOPs of the training phase, divided by what the device could do in that time at "
    "its measured bf16 matmul rate. Energy: training phase only. Latency: median for one row; "
    "Inference: in batches of 64. Peak memory consists of weights, gradients, optimizer state, "
    "activations (everything else allocated by forward and backward), workspace of the matrix "
    "library, and allocator overhead (rounding: bytes that torch's allocator hands out beyond "
    "the requested size)."
)


def has_costs(rows: Sequence[Row]) -> bool:
    """Whether any of the rows has the figures that only a GPU gives."""
    return any(map(_is_measured, rows))


def _is_measured(row: Row) -> bool:
    return "step_median_seconds" in row.metrics and "train_reserved_bytes" in row.metrics


def cost_tables(rows: Sequence[Row], layout: Layout) -> list[str]:
    """Format one row per method, means over seeds, in as many parts as the width needs.

    Empty if nothing was measured (on a CPU).
    """
    measured = [row for row in rows if _is_measured(row)]
    if not measured:
        return []
    headings = (
        "Method",
        *COST_COLUMNS,
        *(part.replace("_", " ").capitalize() for part in MEMORY_PARTS),
    )
    names = (*COST_COLUMNS.values(), *(f"{part}_bytes" for part in MEMORY_PARTS))
    lines = [[layout.escape(row.title), *(_cell(row, name) for name in names)] for row in measured]
    return layout.tables(headings, lines)


def _cell(row: Row, name: str) -> str:
    """Format a metric. "Reserved" is the memory held while training.

    With the cuda_graphs engine that is what the captured steps reserved, not an eager step.
    """
    figure = row.metrics.get("engine_reserved_bytes") if name == "train_reserved_bytes" else None
    figure = figure or row.metrics.get(name)
    return MISSING if figure is None else METRICS[name].format(figure.mean)
