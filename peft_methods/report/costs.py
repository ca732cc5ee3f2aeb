"""The second table, on a GPU: what a step, its energy, its memory and later use cost, method by method."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from peft_methods.comparing import Row
from peft_methods.metrics import MEMORY_PARTS, METRICS
from peft_methods.report.shown import NOTHING

COLUMNS = {
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
SAID = (
    "MFU: model FLOPs of the training phase over what the device could have done at its measured bf16 matmul rate. Energy: the "
    "training phase's. Latency: one row, median; Inference: in batches of 64. Peak memory is made of: weights, gradients, "
    "optimizer state, activations (all else that forward and backward allocate), workspace of the matrix library, and what torch's "
    "allocator gives beyond what is asked for (rounding)."
)


def cost_table(rows: Sequence[Row], style: str) -> str:
    """A row a method, means over seeds; empty where nothing of it was measured (on a CPU)."""
    measured = [
        row
        for row in rows
        if "step_median_seconds" in row.figures and "train_reserved_bytes" in row.figures
    ]
    if not measured:
        return ""
    headers = ("Method", *COLUMNS, *(part.replace("_", " ").capitalize() for part in MEMORY_PARTS))
    names = (*COLUMNS.values(), *(f"{part}_bytes" for part in MEMORY_PARTS))
    lines = [[row.title, *(_cell(row, name) for name in names)] for row in measured]
    return tabulate(
        lines,
        headers=headers,
        tablefmt=style,
        disable_numparse=True,
        colalign=("left", *["right"] * len(names)),
    )


def _cell(row: Row, name: str) -> str:
    """What captured steps reserved stands where an eager step's would: it is what training held."""
    figure = row.figures.get("engine_reserved_bytes") if name == "train_reserved_bytes" else None
    figure = figure or row.figures.get(name)
    return NOTHING if figure is None else METRICS[name].format(figure.mean)
