"""From a finished training to its record: metrics, the per-epoch curve and the environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from peft_methods.models import ranks
from peft_methods.models.parameters import ParameterCounts
from peft_methods.profiling.flops import TrainingFlops
from peft_methods.profiling.memory_peaks import share
from peft_methods.profiling.phases import PHASES, PhaseMeter
from peft_methods.profiling.profiler import Profiler
from peft_methods.runs.saved_size import SavedSize
from peft_methods.tasks.base import Quality, Task
from peft_methods.training.engine import Training, TrainingJob
from peft_methods.training.evidence import Evidence

TIMES_OF_TEXTS = ("data_seconds", "tokenize_seconds")  # meaningless where tokens were drawn


def quality_metrics(
    task: Task, quality: Quality | None, training: Training
) -> dict[str, float | None]:
    """Return the task's test scores, None without any, and those of the best epoch."""
    best = asdict(training.epochs[training.best_epoch - 1])
    found = {} if quality is None else quality.scores
    return {
        **{metric.name: found.get(metric.name) for metric in task.metrics},
        **{metric.name: best.get(metric.name) for metric in task.further_metrics},
    }


def parameter_metrics(counts: ParameterCounts) -> dict[str, float | None]:
    """Return the record's parameter counts."""
    trainable = counts.method + counts.head
    return {
        "trainable_parameters": trainable,
        "method_parameters": counts.method,
        "head_parameters": counts.head,
        "total_parameters": counts.total,
        "trainable_share": trainable / counts.total,
    }


def time_metrics(
    meter: PhaseMeter,
    training: Training,
    prefetch_seconds: Mapping[str, float],
    *,
    random_tokens: bool,
) -> dict[str, float | None]:
    """Return seconds of every phase, prefetching included, and the training throughput.

    Padding is no part of the throughput, so that padded and packed batches can be compared. Where
    tokens were drawn at random, the times of reading and tokenizing texts are missing.
    """
    seconds: dict[str, float | None] = {
        f"{phase}_seconds": meter.seconds(phase) + prefetch_seconds.get(f"{phase}_seconds", 0.0)
        for phase in PHASES
    }
    train = meter.seconds("train")
    throughput: dict[str, float | None] = {
        "samples_per_second": training.samples / train,
        "tokens_per_second": training.tokens / train,
        "trained_tokens": training.tokens,
        "padding_tokens": training.padding,
        "padding_share": share(training.padding, training.tokens + training.padding),
    }
    unknown = dict.fromkeys(TIMES_OF_TEXTS) if random_tokens else {}
    return {**seconds, **throughput, **unknown}


def communication_metrics(training: Training) -> dict[str, float | None]:
    """Return the time in which the GPUs of a run exchange data; nothing for one GPU."""
    return {} if ranks.count() == 1 else {"communication_seconds": training.communication_seconds}


def curve(training: Training, profiler: Profiler) -> tuple[dict[str, float | None], ...]:
    """Return each epoch's results with the seconds and the method's peak of its training phase."""
    stretches = [interval for interval in profiler.meter.intervals if interval.phase == "train"]
    return tuple(
        {
            **asdict(result),
            "train_seconds": stretch.seconds,
            "peak_memory_bytes": profiler.method_peak_bytes(stretch),
        }
        for result, stretch in zip(training.epochs, stretches, strict=True)
    )


def training_flops(job: TrainingJob, training: Training, counted: TrainingFlops) -> float:
    """Return the model's FLOPs in all steps of a training.

    Each forward pass counts as a step, also those whose gradients are accumulated.
    """
    lengths, epochs = job.data.train.lengths, len(training.epochs)
    steps = math.ceil(len(lengths) / job.recipe.budget.batch_size)
    later = counted.later_epochs or counted
    return counted.of(lengths, steps) + (epochs - 1) * later.of(lengths, steps)


@dataclass(frozen=True)
class RunOutcome:
    """What training and evaluation gave."""

    training: Training
    evidence: Evidence
    quality: Quality | None
    size: SavedSize
    inference: dict[str, float]
    pace_seconds: float
    model_flops: float | None
    notes: tuple[str, ...]
    resumed_after: tuple[int, ...]
    further: dict[str, float] = field(default_factory=dict)
    untrained: dict[str, float] = field(default_factory=dict)
