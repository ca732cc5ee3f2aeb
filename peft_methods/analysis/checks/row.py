"""The values that rules check, as plain numbers, from a record or from a table made elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.models.architecture import Architecture
from peft_methods.runs.record import Record
from peft_methods.tasks.metrics import Metric
from peft_methods.tasks.registry import TASKS

VERSIONS = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True)
class ResultRow:
    """One row: a run, the mean over a method's seeds, or a line of a table.

    Values are in base units, shares in 0..1. Unknown values are None or empty. Series are by epoch.

    - `name`: the row's name in findings.
    - `method`: the method's name in the registry; None for an unknown method.
    - `score`: the test score by the metric `quality`, by which methods are compared, where that is
      not the accuracy; `trivial` is that of a predictor that ignores the texts, or of the untrained
      model.
    - `margin`: how far accuracy or `score` must be above that of the trivial predictor.
    - `may_learn_nothing`: whether it may also be that of the trivial predictor.
    - `ranked`: whether the rows claim an order by quality, as a table does.
    - `unscored`: whether the logits of the test rows were not finite, so it was not scored.
    - `architectures`: the model architectures that the row may be about.
    - `trainable`: the trainable parameters, head included.
    - `rates`: the grid from which `learning_rate` was chosen.
    - `rounding`: how far the digits of `validation_accuracy` and of its log allow each to be off.
      `loss_rounding`: the same for `validation_losses`.
    - `train_accuracy`: of a run that of the chosen epoch, counted while it was trained: with
      dropout and with weights that still changed, so it is rather too low.
    - `classes_predicted`: the number of classes that any test row was predicted as.
    - `has_learnt`: of tasks whose trivial predictor is the untrained model, whether the test loss
      is below that model's; None if there is no such loss.
    - `peak_is_reset`: whether the peak is known to be that of training alone.
    - `model` and `task`: as the row names them, in a column or among the words of its method.
    - `named_data`: the data set that the method's name, or else the table's title, mentions.
    - `scores`: other figures of quality by name (`f1`, `exact_match`, `rouge1`), shares in 0..1
      where the metric has that scale.
    - `total`: the number of all parameters as it is given, `trainable_share` the share that is
      trained.
    - `rank`, `virtual_tokens`, `targets`, `bias`: the method's settings, as far as they are named.
    - `out_of_memory`: whether the run ended for lack of memory, so that it has no figures.
    - `line`: the row's place in its table, from 0.
    - `engine_note`: why the chosen engine did not train it. `fell_back`: the share of such runs.
    """

    name: str
    method: str | None = None
    accuracy: float | None = None
    validation_accuracy: float | None = None
    train_accuracy: float | None = None
    majority: float | None = None
    quality: Metric | None = None
    model: str = ""
    task: str | None = None
    seed: float | None = None
    line: int = 0
    out_of_memory: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    trivial: float | None = None
    trivial_is_untrained: bool = False
    has_learnt: bool | None = None
    classes_predicted: int | None = None
    margin: float = 0.0
    may_learn_nothing: bool = False
    ranked: bool = False
    unscored: bool = False

    data: str | None = None
    named_data: str = ""
    train_rows: float | None = None
    validation_rows: float | None = None
    test_rows: float | None = None
    class_counts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    architectures: tuple[Architecture, ...] = ()
    trainable: RoundedCount | None = None
    total: RoundedCount | None = None
    trainable_share: RoundedCount | None = None
    rank: float | None = None
    virtual_tokens: float | None = None
    targets: tuple[str, ...] = ()
    bias: str | None = None
    method_parameters: float | None = None
    expected_method_parameters: float | None = None
    head_trained: float | None = None
    head_parameters: float | None = None
    head_quantized: int = 0
    total_parameters: float | None = None

    epochs: float | None = None
    steps_per_epoch: float | None = None
    batch_size: float | None = None
    max_length: float | None = None
    learning_rate: float | None = None
    rates: tuple[float, ...] = ()
    train_losses: tuple[float, ...] = ()
    validation_losses: tuple[float, ...] = ()
    validation_accuracies: tuple[float, ...] = ()
    rounding: float = 0.0
    loss_rounding: float = 0.0
    best_epoch: int | None = None
    random: bool = False

    train_seconds: float | None = None
    train_seconds_deviation: float | None = None
    step_seconds: float | None = None
    samples_per_second: float | None = None
    total_steps: float | None = None
    energy_joules: float | None = None
    peak_memory: RoundedCount | None = None
    maximum_memory: float | None = None
    peak_is_reset: bool | None = None
    clock_mhz: float | None = None
    engine_note: str = ""
    fell_back: float = 0.0

    precision: str | None = None
    device: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def only_loss_improved(self) -> bool:
        """Whether a language model's loss fell, but what it writes is scored no better.

        A recipe that wants a margin is not content with a loss: then this is never so.
        """
        metric, score, trivial = self.quality, self.score, self.trivial
        if metric is None or score is None or trivial is None or self.margin:
            return False
        return bool(self.has_learnt) and metric.sign() * (score - trivial) <= 0

    @property
    def memory(self) -> float | None:
        """The highest memory figure known, in bytes."""
        given = None if self.peak_memory is None else self.peak_memory.value
        return max(
            (value for value in (self.maximum_memory, given) if value is not None), default=None
        )

    @property
    def memory_limits(self) -> tuple[float, float]:
        """What `memory` may have been before it was rounded; zeros if it is not known."""
        value, peak = self.memory or 0.0, self.peak_memory
        is_peak = peak is not None and peak.value == value
        return (peak.low, peak.high) if peak is not None and is_peak else (value, value)


def row_of(record: Record) -> ResultRow:
    """Return the values of one run's record."""
    recipe, metrics, evidence = record.spec.recipe, record.metrics, record.evidence
    data, budget = record.data, recipe.budget
    task = TASKS[recipe.task]
    counts = {split: tuple(count) for split, count in data.get("class_counts", {}).items()}
    rows = {split: sum(count) or None for split, count in counts.items()}
    batch = budget.batch_size * budget.gradient_accumulation
    peak = metrics.get("peak_memory_bytes")
    return ResultRow(
        name=f"{record.recipe_name}-{record.method_name}",
        method=record.method_name,
        accuracy=metrics.get("accuracy"),
        validation_accuracy=metrics.get("validation_accuracy"),
        train_accuracy=_train_accuracy(record),
        majority=data.get("majority"),
        **_against_trivial(record),
        classes_predicted=_classes_predicted(record),
        margin=recipe.expect.margin_over_majority,
        may_learn_nothing=not recipe.expect.above_majority,
        data=record.rows_fingerprint,
        train_rows=rows.get("train"),
        validation_rows=rows.get("validation"),
        test_rows=rows.get("test"),
        class_counts=counts if task.has_classes else {},
        method_parameters=metrics.get("method_parameters"),
        expected_method_parameters=evidence.expected_trainable,
        head_trained=metrics.get("head_parameters"),
        head_parameters=evidence.head_parameters,
        head_quantized=evidence.head_quantized,
        total_parameters=metrics.get("total_parameters"),
        epochs=budget.epochs,
        steps_per_epoch=math.ceil(train / batch) if (train := rows.get("train")) else None,
        batch_size=batch,
        max_length=recipe.data.max_length,
        learning_rate=record.spec.method.learning_rate,
        rates=tuple((record.tuning or {}).get("grid", {}).get("learning_rate", ())),
        train_losses=_series(record, "train_loss"),
        validation_losses=_series(record, "validation_loss"),
        validation_accuracies=_series(record, "validation_accuracy"),
        best_epoch=record.best_epoch,
        random=not recipe.has_quality,
        train_seconds=metrics.get("train_seconds"),
        step_seconds=metrics.get("step_p95_seconds"),
        peak_memory=None if peak is None else RoundedCount.exactly(peak),
        maximum_memory=max(_series(record, "peak_memory_bytes"), default=None),
        peak_is_reset="never reset" not in record.environment.get("memory_kind", ""),
        clock_mhz=((record.environment.get("gpu") or {}).get("after") or {}).get("sm_clock_mhz"),
        engine_note=record.environment.get("engine_note") or "",
        fell_back=float(bool(record.environment.get("engine_note"))),
        precision=budget.precision,
        device=record.environment.get("device_name"),
        versions={
            name: version
            for name in VERSIONS
            if (version := record.environment.get("packages", {}).get(name))
        },
    )


def _against_trivial(record: Record) -> dict[str, Any]:
    """Return the fields about the score and the trivial predictor's, and whether there is one."""
    recipe, data, metrics = record.spec.recipe, record.data, record.metrics
    task, rank_by = TASKS[recipe.task], recipe.ranking_metric
    trivial = (data.get("trivial_baseline") or {}).get(rank_by)
    has_accuracy = "accuracy" in {metric.name for metric in task.metrics}
    reached = metrics.get("accuracy" if has_accuracy else rank_by, 0.0)
    known = data.get("majority") if has_accuracy else trivial
    is_unscored = record.quality is None and reached is None and recipe.has_quality
    found = {"unscored": is_unscored and known is not None}
    if has_accuracy:
        return found
    return found | {
        "quality": task.metric(rank_by),
        "score": metrics.get(rank_by),
        "trivial": trivial,
        "trivial_is_untrained": task.baseline_is_untrained,
        "has_learnt": _has_learnt(record) if task.baseline_is_untrained else None,
    }


def _has_learnt(record: Record) -> bool | None:
    """Whether the test loss fell below the untrained model's; None if one of them is unknown."""
    loss = TASKS[record.spec.recipe.task].selection_metrics[0]
    before = (record.data.get("trivial_baseline") or {}).get(loss.name)
    after = record.metrics.get(loss.name)
    return None if before is None or after is None else loss.sign() * (after - before) > 0


def _train_accuracy(record: Record) -> float | None:
    """Return the training accuracy of the chosen epoch, as its engine counted it."""
    if record.best_epoch is None or record.best_epoch > len(record.epochs):
        return None
    return record.epochs[record.best_epoch - 1].get("train_accuracy")


def _classes_predicted(record: Record) -> int | None:
    """Return how many classes the test rows were predicted as, by the confusion matrix."""
    confusion = (record.quality or {}).get("confusion")
    return sum(map(any, zip(*confusion, strict=True))) if confusion else None


def _series(record: Record, name: str) -> tuple[float, ...]:
    return tuple(value for epoch in record.epochs if (value := epoch.get(name)) is not None)
