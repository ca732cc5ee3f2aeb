"""Evaluation between epochs: score each epoch on validation data and keep the best weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_methods.data.facts import TokenData
from peft_methods.data.token_rows import TokenRows
from peft_methods.models import ranks
from peft_methods.models.parameters import save_trainable
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.base import Predictions, Task
from peft_methods.tasks.collate import Collator
from peft_methods.tasks.registry import TASKS
from peft_methods.training.collate import on_device
from peft_methods.training.engine import EpochResult, Observer
from peft_methods.training.precision import autocast

ROW_TOKENS = 32  # about as many virtual tokens as methods put before a row


def predict(
    task: Task,
    model: nn.Module,
    rows: TokenRows,
    collate: Collator,
    batch_size: int,
    *,
    precision: str = "fp32",
) -> Predictions:
    """Return the predictions for every row, in the order of `rows`.

    Rows are sorted by length for batching, so there is little padding. `batch_size` is that of the
    longest rows: see `batches_of`. Several ranks share the batches, which are those of one GPU.
    """
    device = next(model.parameters()).device
    lengths = np.asarray(rows.lengths)
    order = np.argsort(lengths, kind="stable")[::-1]
    batches = batches_of(lengths[order], batch_size, fixed=collate.length)
    was_training = model.training
    model.eval()
    parts = []
    with torch.inference_mode(), autocast(device, precision):
        for places in ranks.dealt(batches):
            batch = collate([rows[int(row)] for row in order[places]])
            parts.append(task.predict(model, on_device(batch, device)))
    model.train(was_training)
    ranks.divide_again(model)
    if ranks.count() > 1:
        parts = ranks.collected([part.cpu() for part in parts], len(batches))
    return task.gather(parts, order, rows)


def batches_of(
    lengths: Sequence[int] | NDArray[np.int64], size: int, *, fixed: int | None = None
) -> list[slice]:
    """Divide rows of these lengths, the longest first, into batches. All are padded to `fixed`.

    The first batch has `size` rows. Later ones have more, as long as they need no more memory: a
    GPU computes short rows faster than the host launches their kernels. A row counts as many tokens
    as it is padded to, and `ROW_TOKENS` for what a method adds to it.
    """
    widths = [fixed or int(length) for length in lengths]
    batches, start = list[slice](), 0
    while start < len(widths):
        most = size * (widths[0] + ROW_TOKENS)
        batches.append(slice(start, start + most // (widths[start] + ROW_TOKENS)))
        start = batches[-1].stop
    return batches


# Attributes of the evaluator that a checkpoint stores as they are.
_PLAIN_STATE = (
    *("best_selection", "epochs_without_improvement", "decay", "best_decay", "steps"),
    "processed_tokens",
)


class EvaluatedTrainer(Protocol):
    """The members of a trainer that the evaluator uses."""

    model: Any
    lr_scheduler: Any

    def take_sums(self) -> tuple[float, int | None]:
        """Return the summed loss and the number of right answers, if any. Reset both."""

    def loss_so_far(self) -> torch.Tensor | float:
        """Return the summed loss since the last `take_sums`. A tensor stays on its device."""

    def take_processed_tokens(self) -> int:
        """Return the number of tokens in the batches since the last call, padding included."""


class EpochEvaluator(TrainerCallback):
    """Trainer callback: evaluate each epoch on validation data and save the best weights.

    `best_selection` is the best selection score so far, for early stopping.
    `epochs_without_improvement` counts the epochs since it improved. `decay` has for
    each group of parameters the factor that weight decay alone has applied so far.
    `processed_tokens` includes padding.
    """

    def __init__(
        self,
        trainer: EvaluatedTrainer,
        data: TokenData,
        recipe: Recipe,
        collate: Collator,
        observer: Observer,
        *,
        best: Path,
    ) -> None:
        self.trainer, self.data, self.recipe, self.collate = trainer, data, recipe, collate
        self.observer, self.best_file, self.task = observer, best, TASKS[recipe.task]
        self.sign = self.task.metric(recipe.selection_metric).sign()
        self.results: list[EpochResult] = []
        self.best: EpochResult | None = None
        self.best_selection: float | None = None
        self.epochs_without_improvement = 0
        self.decay: list[float] = []
        self.best_decay: list[float] = []
        self._first_loss: torch.Tensor | float | None = None  # of the epoch
        self.steps = self.processed_tokens = 0

    def state(self) -> dict[str, Any]:
        """Return the state as JSON values. The best epoch's weights are in a file instead."""
        assert self.best is not None, "an epoch was evaluated"
        plain = {name: getattr(self, name) for name in _PLAIN_STATE}
        return {
            "results": [asdict(result) for result in self.results],
            "best_epoch": self.best.epoch,
            **plain,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state returned by `state()`."""
        self.results = [EpochResult(**result) for result in state["results"]]
        self.best = self.results[state["best_epoch"] - 1]
        for name in _PLAIN_STATE:
            setattr(self, name, state[name])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin a training phase."""
        self.trainer.take_sums()
        self._first_loss = None
        self.observer.enter("train")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Update the factors that weight decay alone has applied to the groups' weights."""
        scheduler = self.trainer.lr_scheduler
        assert scheduler is not None, "the Trainer creates it before the first step"
        steps = [1 - float(rate) * args.weight_decay for rate in scheduler.get_last_lr()]
        before = self.decay or [1.0] * len(steps)
        self.decay = [factor * step for factor, step in zip(before, steps, strict=True)]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Report the step to the observer."""
        if self._first_loss is None:
            self._first_loss = self.trainer.loss_so_far()
        self.steps = state.global_step
        self.observer.step(len(self.results) + 1, state.global_step, state.max_steps)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Evaluate the epoch. Save its weights if they are the best. Apply early stopping."""
        self.observer.enter("evaluate")
        loss, correct = self.trainer.take_sums()
        self.processed_tokens += self.trainer.take_processed_tokens()
        rate = float(self.trainer.lr_scheduler.get_last_lr()[0])
        examples = self.task.examples_in_rows(self.data.train)
        accuracy = (
            correct / examples
            if self.recipe.has_quality and correct is not None and math.isfinite(loss)
            else None
        )
        evaluated = self._evaluate(len(self.results) + 1, loss / examples)
        first = None if self._first_loss is None else float(self._first_loss)
        result = replace(evaluated, learning_rate=rate, train_accuracy=accuracy, first_loss=first)
        self.results.append(result)
        self.observer.epoch(result)
        if result.is_better_than(self.best, self.sign):
            self.best, self.best_decay = result, self.decay
            # Without quality the last epoch is the best one.
            if self.recipe.has_quality or len(self.results) == args.num_train_epochs:
                self.observer.enter("save")
                save_trainable(self._model, self.best_file)
        self.observer.enter("evaluate")
        control.should_training_stop |= self._should_stop_early(result)

    def _should_stop_early(self, result: EpochResult) -> bool:
        """Whether the selection score has not improved for `budget.early_stopping` epochs."""
        if not self.recipe.has_quality:
            return False
        selection, best = result.selection, self.best_selection
        if selection is not None and (best is None or self.sign * (selection - best) > 0):
            self.best_selection, self.epochs_without_improvement = selection, 0
        else:
            self.epochs_without_improvement += 1
        return 0 < self.recipe.budget.early_stopping <= self.epochs_without_improvement

    @property
    def _model(self) -> nn.Module:
        assert isinstance(self.trainer.model, nn.Module)
        return self.trainer.model

    def _evaluate(self, epoch: int, train_loss: float) -> EpochResult:
        budget = self.recipe.budget
        predictions = predict(
            self.task,
            self._model,
            self.data.validation,
            self.collate,
            budget.evaluation_batch_size,
            precision=budget.precision,
        )
        if not self.recipe.has_quality:
            return EpochResult(epoch, train_loss)
        if not predictions.is_finite:
            return EpochResult(epoch, train_loss, predictions.loss)
        scores = self.task.evaluate(predictions, self.data.facts.label_names).scores
        selection = scores[self.recipe.selection_metric]
        return EpochResult(epoch, train_loss, predictions.loss, scores.get("accuracy"), selection)
