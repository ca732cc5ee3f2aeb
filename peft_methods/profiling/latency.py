"""Inference cost of a trained model: latency of single rows and throughput of batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from peft_methods.data.token_rows import TokenRow, TokenRows
from peft_methods.tasks.collate import Collator, model_inputs
from peft_methods.training.collate import on_device
from peft_methods.training.precision import autocast

BATCH = 64


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
    each batch size is not counted. On a CPU, where a batch takes a second, only one batch is timed.
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
        one = [seconds([typical[i % len(typical)]]) for i in range(singles + skipped)][skipped:]
        many = [seconds(typical) for _ in range(batches + skipped)][skipped:]
    model.train(was_training)
    return InferenceCost(statistics.median(one), len(typical) / statistics.median(many))
