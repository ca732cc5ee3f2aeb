"""What happens between epochs: each is judged on validation data and the best one's weights are kept."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_methods import quality
from peft_methods.data import TokenData
from peft_methods.engines.base import EpochResult, Listener, save_trainable
from peft_methods.engines.batches import Collator, predict
from peft_methods.recipe import Recipe

PLAIN = ("highest", "since_rise", "decay", "best_decay", "steps")  # numbers that a judge goes by


class JudgedTrainer(Protocol):
    """What is asked of a trainer here."""

    model: Any
    lr_scheduler: Any

    def take_sums(self) -> tuple[float, int]:
        """Cross-entropy (nats) of all rows since last asked, and how many of them were right."""


class Judge(TrainerCallback):
    """Ends each epoch's training phase, judges the epoch on validation data and keeps the best one's weights."""

    def __init__(
        self,
        trainer: JudgedTrainer,
        data: TokenData,
        recipe: Recipe,
        collate: Collator,
        listener: Listener,
        *,
        best: Path,
    ) -> None:
        self.trainer, self.data, self.recipe, self.collate = trainer, data, recipe, collate
        self.listener, self.best_file = listener, best
        self.results: list[EpochResult] = []
        self.best: EpochResult | None = None
        self.highest, self.since_rise = -1.0, 0
        self.decay = self.best_decay = 1.0
        self.steps = 0

    def state(self) -> dict[str, Any]:
        """All that it knows, as JSON values; the best epoch's weights stand in a file."""
        assert self.best is not None, "an epoch was judged"
        plain = {name: getattr(self, name) for name in PLAIN}
        return {
            "results": [asdict(result) for result in self.results],
            "best_epoch": self.best.epoch,
            **plain,
        }

    def put_back(self, state: dict[str, Any]) -> None:
        """Know what another judge knew."""
        self.results = [EpochResult(**result) for result in state["results"]]
        self.best = self.results[state["best_epoch"] - 1]
        for name in PLAIN:
            setattr(self, name, state[name])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A training phase begins."""
        self.trainer.take_sums()
        self.listener.enter("train")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Count what weight decay alone does to a weight."""
        scheduler = self.trainer.lr_scheduler
        assert scheduler is not None, "the Trainer makes it before the first step"
        self.decay *= 1 - max(map(float, scheduler.get_last_lr())) * args.weight_decay

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell of the step."""
        self.steps = state.global_step
        self.listener.step(len(self.results) + 1, state.global_step, state.max_steps)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Judge the epoch; keep its weights if they are the best so far; stop where the budget says so."""
        self.listener.enter("evaluate")
        loss, right = self.trainer.take_sums()
        rate = float(self.trainer.lr_scheduler.get_last_lr()[0])
        accuracy = (
            right / len(self.data.train)
            if self.recipe.has_quality and math.isfinite(loss)
            else None
        )
        judged = self._judge(len(self.results) + 1, loss / len(self.data.train))
        result = replace(judged, learning_rate=rate, train_accuracy=accuracy)
        self.results.append(result)
        self.listener.epoch(result)
        if result.is_better_than(self.best):
            self.best, self.best_decay = result, self.decay
            if (
                self.recipe.has_quality or len(self.results) == args.num_train_epochs
            ):  # without quality the last is the best
                self.listener.enter("save")
                save_trainable(self._model, self.best_file)
        self.listener.enter("evaluate")
        control.should_training_stop |= self._is_spent(result)

    def _is_spent(self, result: EpochResult) -> bool:
        """Whether the selection metric has not risen for as many epochs as early stopping allows."""
        if not self.recipe.has_quality:
            return False
        selection = -1.0 if result.selection is None else result.selection
        self.since_rise = 0 if selection > self.highest else self.since_rise + 1
        self.highest = max(self.highest, selection)
        return 0 < self.recipe.budget.early_stopping <= self.since_rise

    @property
    def _model(self) -> nn.Module:
        assert isinstance(self.trainer.model, nn.Module)
        return self.trainer.model

    def _judge(self, epoch: int, train_loss: float) -> EpochResult:
        budget = self.recipe.budget
        predictions = predict(
            self._model,
            self.data.validation,
            self.collate,
            budget.evaluation_batch_size,
            budget.precision,
        )
        if not self.recipe.has_quality:
            return EpochResult(epoch, train_loss)
        if not predictions.is_finite:
            return EpochResult(epoch, train_loss, predictions.loss)
        judged = quality.judge(predictions, self.data.facts.label_names)
        selection = getattr(judged, self.recipe.data.select_by)
        return EpochResult(epoch, train_loss, predictions.loss, judged.accuracy, selection)
