"""METRICS: every metric of a record by name, those of the tasks and those of the costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, partial

from peft_methods.tasks.metrics import (
    BYTES,
    COUNT,
    JOULES,
    PER_SECOND,
    SECONDS,
    SHARE,
    SHORT_SECONDS,
    Metric,
)
from peft_methods.tasks.registry import TASKS
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

_cost = partial(Metric, higher_is_better=False, device_dependent=True)
_speed = partial(Metric, higher_is_better=True, device_dependent=True)
_size = partial(Metric, higher_is_better=False)
_fact = partial(Metric, higher_is_better=None)
# A process that has done a run keeps its rows and compiled code, so these depend on the order of
# the runs. They are no property of a method, and no method is better by them.
_start = partial(_fact, device_dependent=True)
COST_METRICS = (
    _size("trainable_parameters", "Trainable", COUNT),
    _size("method_parameters", "Trainable (method)", COUNT),
    _fact("head_parameters", "Trainable (head)", COUNT),
    _fact("total_parameters", "All parameters", COUNT),
    _size("trainable_share", "Trainable share", SHARE, bounds=(0.0, 1.0)),
    _cost("train_seconds", "Train time", SECONDS),
    _speed("samples_per_second", "Samples", PER_SECOND),
    _speed("tokens_per_second", "Tokens", PER_SECOND),
    _fact("trained_tokens", "Tokens trained", COUNT),
    _fact("padding_tokens", "Padding tokens", COUNT),
    _fact("padding_share", "Padding", SHARE, bounds=(0.0, 1.0)),
    _cost("peak_memory_bytes", "Peak memory", BYTES),
    _cost("step_median_seconds", "Step (median)", SHORT_SECONDS),
    _cost("step_p95_seconds", "Step (95th percentile)", SHORT_SECONDS),
    _speed("model_flops_utilization", "Model FLOPs utilisation", SHARE),
    _cost("least_peak_memory_bytes", "Peak memory, least of the GPUs", BYTES),
    _cost("communication_seconds", "Communication, a step", SHORT_SECONDS),
    _speed("scaling_efficiency", "Scaling efficiency", SHARE),
    _cost("energy_joules", "Energy", JOULES),
    _cost("thermal_slowdown_seconds", "Thermal slowdown", SECONDS),
    _fact("busy_share", "Training thread's share of a core", SHARE, device_dependent=True),
    _fact("pace_seconds", "Pace of the machine", SHORT_SECONDS, device_dependent=True),
    _cost("latency_seconds", "Latency, batch 1", SHORT_SECONDS),
    _speed("inference_samples_per_second", "Inference, batch 64", PER_SECOND),
    _cost("merged_latency_seconds", "Latency, merged", SHORT_SECONDS),
    _speed("merged_inference_samples_per_second", "Inference, merged", PER_SECOND),
    *(
        _cost(f"{phase}_{kind}_bytes", f"{title}, {phase}", BYTES)
        for kind, title in (
            ("allocated", "Allocated peak"),
            ("reserved", "Reserved peak"),
            ("device", "Device memory"),
        )
        for phase in MEMORY_PHASES
    ),
    _cost("engine_reserved_bytes", "Reserved peak, cuda_graphs engine", BYTES),
    *(_cost(f"{part}_bytes", f"Peak: {part.replace('_', ' ')}", BYTES) for part in MEMORY_PARTS),
    _size("checkpoint_bytes", "Weights per task", BYTES),
    _size("saved_model_bytes", "Saved model", BYTES),
    _cost("source_seconds", "Train time of prerequisite runs", SECONDS),
    _start("data_seconds", "Reading data", SECONDS),
    _start("load_seconds", "Loading the model", SECONDS),
    _start("tokenize_seconds", "Tokenizing", SECONDS),
    _cost("baseline_seconds", "Measuring the untrained model", SECONDS),
    _start("warm_up_seconds", "Warm-up", SECONDS),
    *(_start(f"{phase.name}_seconds", phase.title, SECONDS) for phase in ENGINE_PHASES),
    _cost("evaluate_seconds", "Evaluating", SECONDS),
    _cost("generate_seconds", "Generating texts", SECONDS),
    _cost("save_seconds", "Saving", SECONDS),
    _cost("infer_seconds", "Timing inference", SECONDS),
    _cost("check_seconds", "Checking weights", SECONDS),
)


class _Metrics(Mapping[str, Metric]):
    """Every metric by name, in the order of the tables. Tasks are looked for at the first use."""

    @cached_property
    def _found(self) -> dict[str, Metric]:
        of_tasks = [metric for task in TASKS.values() for metric in task.all_metrics]
        return {metric.name: metric for metric in (*of_tasks, *COST_METRICS)}

    def __getitem__(self, name: str) -> Metric:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


METRICS = _Metrics()
