"""Column names of plain tables, the kind of value in each column, and names of methods."""

from __future__ import annotations

import re
from dataclasses import dataclass

from peft_methods.utils.units import unit_of

TEXT = "text"


@dataclass(frozen=True)
class Column:
    """A column that a table may have.

    `kind` is TEXT or a key of `units.UNITS`. `spellings` are lower-case, without a unit, with words
    joined by `_`.
    """

    field: str
    kind: str
    spellings: tuple[str, ...]
    is_series: bool = False


def _column(field: str, kind: str, spellings: str, *, series: bool = False) -> Column:
    return Column(field, kind, (field, *spellings.split()), series)


COLUMNS = (
    _column(
        "method",
        TEXT,
        "name methods technique approach strategy peft_method fine_tuning_method finetuning_method",
    ),
    _column("model", TEXT, "base_model backbone encoder checkpoint model_name"),
    _column("data", TEXT, "dataset data_set task corpus benchmark"),
    _column("precision", TEXT, "dtype mixed_precision"),
    _column("device", TEXT, "gpu hardware accelerator device_name"),
    *(
        _column(package, TEXT, f"{package}_version")
        for package in ("torch", "transformers", "peft", "bitsandbytes")
    ),
    _column(
        "accuracy",
        "share",
        "acc test test_accuracy test_acc accuracy_test final_accuracy final_test_accuracy",
    ),
    _column(
        "validation_accuracy",
        "share",
        "validation_acc validation val val_accuracy val_acc dev dev_accuracy dev_acc "
        "eval_accuracy eval_acc",
    ),
    _column("train_accuracy", "share", "train_acc training_accuracy training_acc"),
    _column("majority", "share", "majority_accuracy majority_class majority_baseline chance"),
    _column(
        "trainable_parameters",
        "count",
        "trainable_params trainable params parameters param_count n_params "
        "num_trainable_parameters tunable_parameters",
    ),
    _column(
        "train_seconds",
        "seconds",
        "train training train_time training_time time runtime train_runtime duration "
        "training_duration",
    ),
    _column("step_seconds", "seconds", "step step_time time_per_step seconds_per_step"),
    _column(
        "peak_memory",
        "bytes",
        "memory peak gpu_memory peak_gpu_memory vram peak_vram gpu_usage memory_usage "
        "gpu_memory_usage mem gpu_mem",
    ),
    _column(
        "max_memory",
        "bytes",
        "maximum_memory max_gpu_memory memory_max max_vram max_memory_allocated max",
    ),
    _column("epochs", "plain", "epoch num_epochs num_train_epochs n_epochs"),
    _column(
        "steps_per_epoch",
        "count",
        "steps_an_epoch steps_epoch iterations_per_epoch batches_per_epoch",
    ),
    _column("batch_size", "count", "batch bs train_batch_size per_device_train_batch_size"),
    _column(
        "max_length", "count", "max_len max_seq_length max_sequence_length sequence_length seq_len"
    ),
    _column("learning_rate", "plain", "lr rate"),
    _column(
        "learning_rates", "plain", "rates lr_grid learning_rate_grid rates_tried lrs", series=True
    ),
    _column(
        "train_rows", "count", "train_size train_samples train_examples n_train training_samples"
    ),
    _column(
        "validation_rows",
        "count",
        "validation_size val_size val_samples validation_samples n_validation n_val",
    ),
    _column("test_rows", "count", "test_size test_samples test_examples n_test"),
    _column("train_losses", "loss", "train_loss training_loss training_losses", series=True),
    _column(
        "validation_losses",
        "loss",
        "validation_loss val_loss val_losses eval_loss eval_losses dev_losses",
        series=True,
    ),
    _column(
        "validation_accuracies",
        "share",
        "val_accuracies val_accs eval_accuracies dev_accuracies",
        series=True,
    ),
    *(
        _column(f"{split}_class_counts", "count", f"{split}_classes", series=True)
        for split in ("train", "validation", "test")
    ),
)


def column_of(header: str) -> tuple[Column, float | None] | None:
    """Return the column for a header, and the factor of the unit that the header names.

    Returns None for an unknown header. The factor is None if the header names no unit.
    """
    words = re.findall(r"[a-z0-9]+|%", header.casefold())
    for column in COLUMNS:
        bare, factor = (words, None) if column.kind == TEXT else unit_of(words, column.kind)
        if "_".join(words) in column.spellings and factor is None:
            return column, None
        if factor is not None and _spelt(bare, column):
            return column, factor
    return None


def _spelt(words: list[str], column: Column) -> bool:
    """Whether words, stripped of their unit, are a spelling of the column.

    A spelling may include the unit: `train_seconds` names the column and its unit at once.
    """
    return "_".join(words) in {
        spelling for name in column.spellings for spelling in (name, name.removesuffix("_seconds"))
    }
