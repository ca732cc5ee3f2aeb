"""METRICS: name, title, direction and number format of every metric of a record."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def in_seconds(value: float) -> str:
    """Format seconds: '12.6 s', '0.27 s'."""
    return f"{value:.{seconds_decimals(value)}f} s"


def seconds_decimals(seconds: float) -> int:
    """Return the number of decimals: one, or two below one second."""
    return 2 if 0 < seconds < 1 else 1


def _rate(value: float) -> str:
    return f"{value:,.1f}/s"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.1f} MiB"


def _milliseconds(value: float) -> str:
    return f"{1000 * value:,.1f} ms"


def _joules(value: float) -> str:
    return f"{value:,.0f} J"


def _number(written: str) -> str:
    found = re.match(r"-?(?:[\d.,]+|nan|inf)", written)
    assert found is not None, "every formatted metric starts with a number"
    return found[0]


@dataclass(frozen=True)
class Metric:
    """One metric of a record. Its name ends in its unit; `better` None: no direction is better."""

    name: str
    title: str
    better: Literal["higher", "lower"] | None
    format: Callable[[float], str]

    def spread(self, deviation: float, mean: float) -> str:
        """Format a standard deviation with the decimals of its mean and without the unit."""
        return (
            f"{deviation:.{seconds_decimals(mean)}f}"
            if self.format is in_seconds
            else _number(self.format(deviation))
        )

    def with_spread(self, mean: float, deviation: float) -> str:
        """Format mean and standard deviation: '34.2 ± 0.9 s'."""
        written = self.format(mean)
        number = _number(written)
        return f"{number} ± {self.spread(deviation, mean)}{written.removeprefix(number)}"

    @property
    def is_share(self) -> bool:
        """Whether values are in 0..1, so that differences are in points."""
        return self.format is _percent

    @property
    def is_counted(self) -> bool:
        """Whether values are counts, which do not depend on the seed."""
        return self.format is _count

    @property
    def is_of_the_device(self) -> bool:
        """Whether values depend on the device: time, memory and energy do.

        Quality, counts and the size of saved weights do not.
        """
        ends = ("_seconds", "_bytes", "_per_second", "_joules", "_utilization")
        return self.name.endswith(ends) and self.name != "checkpoint_bytes"


MEMORY_PHASES = ("load", "train", "evaluate")
MEMORY_PARTS = (
    "weights",
    "gradients",
    "optimizer_state",
    "activations",
    "workspace",
    "rounding",
    "unattributed",
)  # parts of the peak
METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", "higher", _percent),
        Metric("macro_f1", "Macro F1", "higher", _percent),
        Metric("weighted_f1", "Weighted F1", "higher", _percent),
        Metric("macro_precision", "Macro precision", "higher", _percent),
        Metric("macro_recall", "Macro recall", "higher", _percent),
        Metric("validation_accuracy", "Validation accuracy", "higher", _percent),
        Metric("trainable_parameters", "Trainable", "lower", _count),
        Metric("method_parameters", "Trainable (method)", "lower", _count),
        Metric("head_parameters", "Trainable (head)", None, _count),
        Metric("total_parameters", "All parameters", None, _count),
        Metric("trainable_share", "Trainable share", "lower", _percent),
        Metric("train_seconds", "Train time", "lower", in_seconds),
        Metric("samples_per_second", "Samples", "higher", _rate),
        Metric("tokens_per_second", "Tokens", "higher", _rate),
        Metric("peak_memory_bytes", "Peak memory", "lower", _mebibytes),
        Metric("step_median_seconds", "Step (median)", "lower", _milliseconds),
        Metric("step_p95_seconds", "Step (95th percentile)", "lower", _milliseconds),
        Metric("model_flops_utilization", "Model FLOPs utilisation", "higher", _percent),
        Metric("energy_joules", "Energy", "lower", _joules),
        Metric("thermal_slowdown_seconds", "Thermal slowdown", "lower", in_seconds),
        Metric("busy_share", "Training thread's share of a core", None, _percent),
        Metric("latency_seconds", "Latency, batch 1", "lower", _milliseconds),
        Metric("inference_samples_per_second", "Inference, batch 64", "higher", _rate),
        Metric("merged_latency_seconds", "Latency, merged", "lower", _milliseconds),
        Metric("merged_inference_samples_per_second", "Inference, merged", "higher", _rate),
        *(
            Metric(f"{phase}_{kind}_bytes", f"{title}, {phase}", "lower", _mebibytes)
            for kind, title in (
                ("allocated", "Allocated peak"),
                ("reserved", "Reserved peak"),
                ("device", "Device memory"),
            )
            for phase in MEMORY_PHASES
        ),
        Metric("engine_reserved_bytes", "Reserved peak, cuda_graphs engine", "lower", _mebibytes),
        *(
            Metric(f"{part}_bytes", f"Peak: {part.replace('_', ' ')}", "lower", _mebibytes)
            for part in MEMORY_PARTS
        ),
        Metric("checkpoint_bytes", "Saved weights", "lower", _mebibytes),
        Metric("source_seconds", "Train time of prerequisite runs", "lower", in_seconds),
        Metric("data_seconds", "Reading data", "lower", in_seconds),
        Metric("load_seconds", "Loading the model", "lower", in_seconds),
        Metric("tokenize_seconds", "Tokenizing", "lower", in_seconds),
        Metric("warm_up_seconds", "Warm-up", "lower", in_seconds),
        Metric("capture_seconds", "Compiling and capturing", "lower", in_seconds),
        Metric("evaluate_seconds", "Evaluating", "lower", in_seconds),
        Metric("save_seconds", "Saving", "lower", in_seconds),
        Metric("infer_seconds", "Timing inference", "lower", in_seconds),
        Metric("check_seconds", "Checking weights", "lower", in_seconds),
    )
}
