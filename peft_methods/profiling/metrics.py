"""METRICS: name, title, direction and number format of every metric of a record."""

from __future__ import annotations

from peft_methods.tasks.metrics import (
    Metric,
    count,
    in_seconds,
    joules,
    mebibytes,
    milliseconds,
    percent,
    rate,
)
from peft_methods.training.registry import ENGINE_PHASES

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
        Metric("accuracy", "Accuracy", "higher", percent),
        Metric("macro_f1", "Macro F1", "higher", percent),
        Metric("weighted_f1", "Weighted F1", "higher", percent),
        Metric("macro_precision", "Macro precision", "higher", percent),
        Metric("macro_recall", "Macro recall", "higher", percent),
        Metric("validation_accuracy", "Validation accuracy", "higher", percent),
        Metric("trainable_parameters", "Trainable", "lower", count),
        Metric("method_parameters", "Trainable (method)", "lower", count),
        Metric("head_parameters", "Trainable (head)", None, count),
        Metric("total_parameters", "All parameters", None, count),
        Metric("trainable_share", "Trainable share", "lower", percent),
        Metric("train_seconds", "Train time", "lower", in_seconds),
        Metric("samples_per_second", "Samples", "higher", rate),
        Metric("tokens_per_second", "Tokens", "higher", rate),
        Metric("peak_memory_bytes", "Peak memory", "lower", mebibytes),
        Metric("step_median_seconds", "Step (median)", "lower", milliseconds),
        Metric("step_p95_seconds", "Step (95th percentile)", "lower", milliseconds),
        Metric("model_flops_utilization", "Model FLOPs utilisation", "higher", percent),
        Metric("energy_joules", "Energy", "lower", joules),
        Metric("thermal_slowdown_seconds", "Thermal slowdown", "lower", in_seconds),
        Metric("busy_share", "Training thread's share of a core", None, percent),
        Metric("latency_seconds", "Latency, batch 1", "lower", milliseconds),
        Metric("inference_samples_per_second", "Inference, batch 64", "higher", rate),
        Metric("merged_latency_seconds", "Latency, merged", "lower", milliseconds),
        Metric("merged_inference_samples_per_second", "Inference, merged", "higher", rate),
        *(
            Metric(f"{phase}_{kind}_bytes", f"{title}, {phase}", "lower", mebibytes)
            for kind, title in (
                ("allocated", "Allocated peak"),
                ("reserved", "Reserved peak"),
                ("device", "Device memory"),
            )
            for phase in MEMORY_PHASES
        ),
        Metric("engine_reserved_bytes", "Reserved peak, cuda_graphs engine", "lower", mebibytes),
        *(
            Metric(f"{part}_bytes", f"Peak: {part.replace('_', ' ')}", "lower", mebibytes)
            for part in MEMORY_PARTS
        ),
        Metric("checkpoint_bytes", "Saved weights", "lower", mebibytes),
        Metric("source_seconds", "Train time of prerequisite runs", "lower", in_seconds),
        Metric("data_seconds", "Reading data", "lower", in_seconds),
        Metric("load_seconds", "Loading the model", "lower", in_seconds),
        Metric("tokenize_seconds", "Tokenizing", "lower", in_seconds),
        Metric("warm_up_seconds", "Warm-up", "lower", in_seconds),
        *(
            Metric(f"{phase.name}_seconds", phase.title, "lower", in_seconds)
            for phase in ENGINE_PHASES
        ),
        Metric("evaluate_seconds", "Evaluating", "lower", in_seconds),
        Metric("save_seconds", "Saving", "lower", in_seconds),
        Metric("infer_seconds", "Timing inference", "lower", in_seconds),
        Metric("check_seconds", "Checking weights", "lower", in_seconds),
    )
}
