"""Inference cost of a trained model: latency of single rows and throughput of batches."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from peft_methods.data.token_rows import TokenRow, TokenRows
from peft_methods.tasks.collate import Collator, model_inputs
from peft_methods.training.collate import on_device
from peft_methods.training.precision import autocast

BATCH = 64
LEAST_PASSES = 6  # that a standard error is computed from
PRECISION = 0.01  # of a median: its standard error, relative to it, when no more passes are timed


@dataclass(frozen=True)
class InferenceCost:
    """Latency and throughput.

    `latency_seconds` is the median time of single rows. `inference_samples_per_second` is the
    number of rows of a batch (at most 64) divided by its median time.
    """

    latency_seconds: float
    inference_samples_per_second: float


def measure_inference(
    model: nn.Module,
    rows: TokenRows,
    collate: Collator,
    *,
    precision: str,
    synchronize: Callable[[], None],
) -> InferenceCost | None:
    """Time the model on the rows of medium length. Return None if there are no rows.

    The time runs from token ids on the host to logits on the device. On a GPU the first pass at
    each batch size is not counted, and passes are timed until their median is known to `PRECISION`,
    at most 20 single rows and 10 batches. On a CPU, where a batch takes a second, only one batch is
    timed, and three single rows.
    """
    if not len(rows):
        return None
    device = next(model.parameters()).device
    singles, batches, skipped = (20, 10, 1) if device.type == "cuda" else (3, 1, 0)
    by_length = sorted(range(len(rows)), key=rows.lengths.__getitem__)
    middle = max(0, len(by_length) // 2 - BATCH // 2)
    typical = list(rows.select(by_length[middle : middle + BATCH]))

    def seconds(chosen: list[TokenRow]) -> float:
        synchronize()
        started = time.perf_counter()
        model(**on_device(model_inputs(collate(chosen)), device))
        synchronize()
        return time.perf_counter() - started

    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast(device, precision):
        one = median_of_passes(lambda i: seconds([typical[i % len(typical)]]), singles, skipped)
        many = median_of_passes(lambda _: seconds(typical), batches, skipped)
    model.train(was_training)
    return InferenceCost(one, len(typical) / many)


def median_of_passes(timed: Callable[[int], float], most: int, skipped: int) -> float:
    """Return the median of timed passes, numbered from 0, of which the first ones do not count."""
    found: list[float] = []
    for number in range(most + skipped):
        found.append(timed(number))
        if is_precise(found[skipped:]):
            break
    return statistics.median(found[skipped:])


def is_precise(seconds: Sequence[float]) -> bool:
    """Whether the median of these times is known to `PRECISION`.

    Its standard error is sqrt(pi / 2) times that of the mean, for times of a normal distribution.
    Their standard deviation is the range of the middle half divided by 1.349, which single long
    passes do not change.
    """
    if len(seconds) < LEAST_PASSES:
        return False
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    error = math.sqrt(math.pi / 2 / len(seconds)) * (high - low) / 1.349
    return error <= PRECISION * median
