"""The stock engine: Hugging Face's Trainer, told to do nothing but train; epochs are judged from its callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import RandomSampler, Sampler
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler, get_parameter_names

from peft_methods import quality
from peft_methods.data import TokenData
from peft_methods.engines.base import (
    Collator,
    EpochResult,
    Listener,
    NoTrace,
    Training,
    WorstStep,
    autocast,
    checkpointing,
    collator_of,
    load_trainable,
    predict,
    save_trainable,
)
from peft_methods.methods import TRAINED, Method
from peft_methods.models import in_modules
from peft_methods.recipe import Recipe


class StockTrainer(Trainer):
    """Cross-entropy plus the method's own term; batches in an order that the seed alone decides, grouped by length or not."""

    def __init__(self, method: Method, head: tuple[str, ...], *arguments: Any, grouped: bool = True, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.method, self.head, self.grouped = method, head, grouped
        self.model_accepts_loss_kwargs = False  # the loss below is a mean: accumulation has to divide it
        self.loss_sum: torch.Tensor | float = 0.0
        self._rows_per_batch = 0.0  # of the optimizer step at work; 0 outside of any
        self._order = torch.Generator().manual_seed(self.args.seed)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        if not self.grouped:
            return RandomSampler(self.train_dataset, generator=self._order)
        lengths = list(self.train_dataset["length"])
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch, lengths=lengths, generator=self._order)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """All but biases and norms, by what they are: by name an adapter within `LayerNorm` would pass for a norm."""
        return [name for name in get_parameter_names(model, [nn.LayerNorm]) if not name.endswith("bias")]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's, with groups of their own for the head where it has a rate of its own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if self.method.head_learning_rate is not None:
            assert isinstance(self.model, nn.Module)
            in_head = {parameter for name, parameter in self.model.named_parameters() if in_modules(name, self.head)}
            for group in list(optimizer.param_groups):
                head = [parameter for parameter in group["params"] if parameter in in_head]
                group["params"] = [parameter for parameter in group["params"] if parameter not in in_head]
                optimizer.add_param_group({**group, "params": head, "lr": self.method.head_learning_rate})
        return optimizer

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The batches of one optimizer step. The last of an epoch may be shorter than the others."""
        batches, items = super().get_batch_samples(*arguments)
        self._rows_per_batch = sum(len(batch["labels"]) for batch in batches) / max(1, len(batches))
        return batches, items

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """Mean cross-entropy of the batch; its sum is kept on the device for the epoch's mean.

        A batch counts by its rows: accumulated ones give the gradient that one batch of all their rows would.
        """
        labels = inputs.pop("labels")
        loss = F.cross_entropy(model(**inputs).logits.float(), labels)
        self.loss_sum = self.loss_sum + loss.detach() * len(labels)
        loss = loss * (len(labels) / (self._rows_per_batch or len(labels)))
        extra = self.method.extra_loss(model)
        return loss if extra is None else loss + extra


class _Judge(TrainerCallback):
    """Ends each epoch's training phase, judges the epoch on validation data and keeps the best one's weights."""

    def __init__(
        self, trainer: StockTrainer, data: TokenData, recipe: Recipe, collate: Collator, listener: Listener, *, best: Path
    ) -> None:
        self.trainer, self.data, self.recipe, self.collate = trainer, data, recipe, collate
        self.listener, self.best_file = listener, best
        self.results: list[EpochResult] = []
        self.best: EpochResult | None = None
        self.highest, self.since_rise = -1.0, 0
        self.decay = self.best_decay = 1.0

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.loss_sum = 0.0
        self.listener.enter("train")

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        scheduler = self.trainer.lr_scheduler
        assert scheduler is not None, "the Trainer makes it before the first step"
        self.decay *= 1 - max(map(float, scheduler.get_last_lr())) * args.weight_decay

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.listener.step(len(self.results) + 1, state.global_step, state.max_steps)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.listener.enter("evaluate")
        train_loss = float(self.trainer.loss_sum) / len(self.data.train)
        result = self._judge(len(self.results) + 1, train_loss)
        self.results.append(result)
        self.listener.epoch(result)
        if result.is_better_than(self.best):
            self.listener.enter("save")
            self.best, self.best_decay = result, self.decay
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
        predictions = predict(self._model, self.data.validation, self.collate, budget.evaluation_batch_size, budget.precision)
        if not self.recipe.has_quality:
            return EpochResult(epoch, train_loss)
        if not predictions.is_finite:
            return EpochResult(epoch, train_loss, predictions.loss)
        judged = quality.judge(predictions, self.data.facts.label_names)
        selection = getattr(judged, self.recipe.data.select_by)
        return EpochResult(epoch, train_loss, predictions.loss, judged.accuracy, selection)


def train(
    model: nn.Module,
    method: Method,
    data: TokenData,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    *,
    head: tuple[str, ...],
    seed: int,
    device: str,
    workdir: Path,
    listener: Listener,
) -> Training:
    """Train within the recipe's budget and leave the model with its best epoch's weights (also in TRAINED).

    `head` names the modules that `method.head_learning_rate` is for.
    """
    collate, best, budget = collator_of(recipe, tokenizer), workdir / TRAINED, recipe.budget
    arguments = _arguments(recipe, method, seed, device, workdir)
    trainer = StockTrainer(method, head, model, arguments, collate, data.train, grouped=budget.padding == "dynamic")
    judge = _Judge(trainer, data, recipe, collate, listener, best=best)
    trainer.add_callback(judge)
    listener.enter("warm_up")
    with checkpointing(model, on=budget.gradient_checkpointing):
        warm_up(trainer, data, collate, recipe, listener)
        trainer.train()
    listener.enter("save")
    assert judge.best is not None, "at least one epoch was judged"
    if judge.best is not judge.results[-1]:
        load_trainable(model, best)
    epochs = len(judge.results)
    return Training(
        epochs=tuple(judge.results),
        best_epoch=judge.best.epoch,
        steps=trainer.state.global_step,
        samples=epochs * len(data.train),
        tokens=epochs * int(sum(data.train["length"])),
        decay=judge.best_decay,
    )


def warm_up(trainer: StockTrainer, data: TokenData, collate: Collator, recipe: Recipe, listener: Listener) -> None:
    """Two whole steps on the longest batch, the worst case for memory; the second with optimizer state in place.

    Gradients are zeroed before the optimizer sees them and its rate is 0, so no weight changes; random state is put
    back and the optimizer thrown away, so training is the same with and without it. With accumulation, gradients are in
    place from the second batch of a step on: so they are here, as zeros.
    """
    longest = sorted(range(len(data.train)), key=data.train["length"].__getitem__, reverse=True)[: recipe.budget.batch_size]
    model = trainer.model
    assert isinstance(model, nn.Module)
    batch = collate([data.train[row] for row in longest])
    optimizer = trainer.create_optimizer()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    with torch.random.fork_rng():
        model.train()
        _idle_step(trainer, batch, optimizer, recipe, NoTrace())
        if recipe.budget.gradient_accumulation == 1:
            model.zero_grad(set_to_none=True)
        with listener.worst_step(model, optimizer) as trace:
            _idle_step(trainer, batch, optimizer, recipe, trace)
    model.zero_grad(set_to_none=True)
    trainer.optimizer = None


def _idle_step(
    trainer: StockTrainer, batch: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, recipe: Recipe, trace: WorstStep
) -> None:
    """A training step that leaves every weight as it is."""
    model = trainer.model
    assert isinstance(model, nn.Module)
    device = next(model.parameters()).device
    with autocast(device, recipe.budget.precision):
        loss = trainer.compute_loss(model, {name: tensor.to(device) for name, tensor in batch.items()})
    torch.autograd.backward(loss)
    trace.backward_done()
    trained = [p for p in model.parameters() if p.grad is not None]
    nn.utils.clip_grad_norm_(trained, recipe.budget.max_grad_norm)
    for parameter in trained:
        assert parameter.grad is not None
        parameter.grad.zero_()
    optimizer.step()


def _arguments(recipe: Recipe, method: Method, seed: int, device: str, workdir: Path) -> TrainingArguments:
    budget = recipe.budget
    return TrainingArguments(
        output_dir=str(workdir / "trainer"),
        num_train_epochs=budget.epochs,
        per_device_train_batch_size=budget.batch_size,
        gradient_accumulation_steps=budget.gradient_accumulation,
        learning_rate=method.learning_rate,
        weight_decay=budget.weight_decay,
        lr_scheduler_type=budget.schedule,
        warmup_steps=budget.warmup_ratio,  # below 1 the Trainer takes it as a share of all steps
        max_grad_norm=budget.max_grad_norm,
        bf16=budget.precision == "bf16",
        fp16=budget.precision == "fp16",
        tf32=True if budget.precision == "tf32" else None,  # None leaves torch as it is: off
        seed=seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it would read the loss off the device at every step
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
