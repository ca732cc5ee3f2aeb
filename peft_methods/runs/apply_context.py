"""What a run gives its method when it is applied to the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from peft_methods.data.facts import TokenData
from peft_methods.methods.base import ApplyContext
from peft_methods.models import loading
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.collate import model_inputs
from peft_methods.tasks.registry import TASKS
from peft_methods.training.collate import make_collator


def context_of(
    run: RunSpec,
    base: loading.LoadedModel,
    label_names: tuple[str, ...],
    prerequisites: tuple[Path, ...],
    tokens: Callable[[], TokenData],
) -> ApplyContext:
    """Return the context of a run whose base model is loaded. `tokens` returns its rows."""
    task, budget = TASKS[run.recipe.task], run.recipe.budget

    def unquantized() -> nn.Module:
        with torch.random.fork_rng():  # the weights of its head are drawn
            return loading.load(run.recipe.model, task.head, label_names).model

    def train_batches(most: int) -> Sequence[Mapping[str, Tensor]]:
        rows = tokens().train
        size, collate = budget.batch_size, make_collator(run.recipe, base.tokenizer)
        starts = range(0, min(len(rows), most * size), size)
        return [
            model_inputs(collate([rows[n] for n in range(start, min(start + size, len(rows)))]))
            for start in starts
        ]

    return ApplyContext(
        base.architecture, base.head, task.peft_type, prerequisites, unquantized, train_batches
    )
