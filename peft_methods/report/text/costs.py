"""The cost table (GPU only): step time, energy, memory and inference cost of each method."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from peft_methods.analysis.comparison import Row
from peft_methods.profiling.metrics import MEMORY_PARTS, METRICS
from peft_methods.report.formatting import MISSING

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


def cost_table(rows: Sequence[Row], style: str) -> str:
    """Format one row per method, means over seeds. Empty if nothing was measured (on a CPU)."""
    measured = [
        row
        for row in rows
        if "step_median_seconds" in row.metrics and "train_reserved_bytes" in row.metrics
    ]
    if not measured:
        return ""
    headers = (
        "Method",
        *COST_COLUMNS,
        *(part.replace("_", " ").capitalize() for part in MEMORY_PARTS),
    )
    names = (*COST_COLUMNS.values(), *(f"{part}_bytes" for part in MEMORY_PARTS))
    lines = [[row.title, *(_cell(row, name) for name in names)] for row in measured]
    return tabulate(
        lines,
        headers=headers,
        tablefmt=style,
        disable_numparse=True,
        colalign=("left", *["right"] * len(names)),
    )


def _cell(row: Row, name: str) -> str:
    """Format a metric. "Reserved" is the memory held while training.

    With the cuda_graphs engine that is what the captured steps reserved, not an eager step.
    """
    figure = row.metrics.get("engine_reserved_bytes") if name == "train_reserved_bytes" else None
    figure = figure or row.metrics.get(name)
    return MISSING if figure is None else METRICS[name].format(figure.mean)
