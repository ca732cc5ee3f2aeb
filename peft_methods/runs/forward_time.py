"""Time of a row's forward pass, which the duration of runs is estimated from before any of them."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from peft_methods.data import tokenize
from peft_methods.data.facts import TextData, TokenData
from peft_methods.models import loading
from peft_methods.profiling.matmul_rate import cached_matmul_rate, host_flops_per_second
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.registry import TASKS
from peft_methods.training.collate import make_collator
from peft_methods.training.evaluation import predict

if TYPE_CHECKING:
    from torch import nn

MOST_TIMED = 200_000_000  # parameters of a model whose weights are drawn to time it: 800 MB
TIMED_SECONDS = 1.0  # that a batch may take in which a dry run times a model


def can_be_timed(model: nn.Module) -> bool:
    """Whether a model is small enough to draw weights for a timed forward pass."""
    return sum(parameter.numel() for parameter in model.parameters()) <= MOST_TIMED


def timed_seconds(
    texts: TextData, base: loading.LoadedModel, recipe: Recipe, least: float = 0.0
) -> float:
    """Return the median seconds of a row's forward pass.

    It is that of up to three passes over three training batches, none started after 2 s. One batch
    warms up before. If a row takes at least `least` seconds, batches have no more rows than are
    done in `TIMED_SECONDS`; the result is then that of rows of the same mean length.
    """
    size = recipe.budget.batch_size
    few = size if least * size <= TIMED_SECONDS else max(1, int(TIMED_SECONDS / least))
    tokens = _few_rows(texts, base, recipe, few)
    task, collate = TASKS[recipe.task], make_collator(recipe, base.tokenizer)
    predict(task, base.model, tokens.validation, collate, few)
    clock = [time.perf_counter()]
    while len(clock) == 1 or (len(clock) <= 3 and clock[-1] < clock[0] + 2):
        predict(task, base.model, tokens.train, collate, few)
        clock.append(time.perf_counter())
    seconds = statistics.median(b - a for a, b in itertools.pairwise(clock)) / len(tokens.train)
    if few == size:
        return seconds
    usual = _few_rows(texts, base, recipe, size)
    return seconds * statistics.fmean(usual.train.lengths) / statistics.fmean(tokens.train.lengths)


def least_seconds(texts: TextData, base: loading.LoadedModel, recipe: Recipe, device: str) -> float:
    """Return the seconds that a row's forward pass takes at least, without any weights.

    They are those of the products of its tokens with the linear layers, 2 FLOPs a weight and token,
    at the device's measured rate of large matrix products. Attention is left out.
    """
    lengths = _few_rows(texts, base, recipe, recipe.budget.batch_size).train.lengths
    rate = cached_matmul_rate() if device.startswith("cuda") else host_flops_per_second()
    return 2 * _linear_weights(base.model) * statistics.fmean(lengths) / rate


def _linear_weights(model: nn.Module) -> int:
    """Return the number of weights of all linear layers; a tied head's are its own."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    layers = (one for one in model.modules() if isinstance(one, nn.Linear | Conv1D))
    return sum(one.weight.numel() for one in layers)


def _few_rows(texts: TextData, base: loading.LoadedModel, recipe: Recipe, size: int) -> TokenData:
    """Tokenize three training batches of `size` rows as `train`, the first as `validation`."""
    rows = texts.splits["train"].take(range(min(3 * size, len(texts.splits["train"]))))
    first = rows.take(range(min(size, len(rows))))
    few = replace(texts, splits={"train": rows, "validation": first, "test": rows.take([])})
    task = TASKS[recipe.task]
    tokens = tokenize.tokenize(few, base.tokenizer, recipe.data, task, check=False)
    base.check_ids(tokens.train.tokens["input_ids"])
    return tokens
