"""What the trained model costs in use: seconds for one row, rows a second in batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from peft_methods.engines.base import Collator, autocast

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 64


@dataclass(frozen=True)
class InferenceCost:
    """`latency_seconds`: median of single rows. `inference_samples_per_second`: rows of a batch of 64 over its median time."""

    latency_seconds: float
    inference_samples_per_second: float


def cost_of(model: nn.Module, data: Dataset, collate: Collator, *, precision: str, synchronize: Callable[[], None]) -> InferenceCost | None:
    """Time the model on the rows of middle length, from ids on the host to logits on the device; None without rows.

    On a GPU the first pass at each size is not counted. On a CPU, where a batch takes a second, there is one of it.
    """
    if not len(data):
        return None
    device = next(model.parameters()).device
    singles, batches, skipped = (20, 10, 1) if device.type == "cuda" else (3, 1, 0)
    by_length = sorted(range(len(data)), key=data["length"].__getitem__)
    middle = max(0, len(by_length) // 2 - BATCH // 2)
    rows = [data[row] for row in by_length[middle : middle + BATCH]]

    def seconds(chosen: list[dict[str, object]]) -> float:
        synchronize()
        started = time.perf_counter()
        batch = {name: tensor.to(device) for name, tensor in collate(chosen).items() if name != "labels"}
        model(**batch)
        synchronize()
        return time.perf_counter() - started

    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast(device, precision):
        one = [seconds([rows[i % len(rows)]]) for i in range(singles + skipped)][skipped:]
        many = [seconds(rows) for _ in range(batches + skipped)][skipped:]
    model.train(was_training)
    return InferenceCost(statistics.median(one), len(rows) / statistics.median(many))
