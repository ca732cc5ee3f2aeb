"""The stock engine: Hugging Face's Trainer, told to do nothing but train; epochs are judged from its callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import RandomSampler, Sampler
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler, get_parameter_names

from peft_methods.data import TokenData
from peft_methods.engines.base import (
    Listener,
    NoTrace,
    Training,
    WorstStep,
    autocast,
    load_trainable,
    set_product_precision,
)
from peft_methods.engines.batches import Collator, collator_of, on_device
from peft_methods.engines.judging import Judge
from peft_methods.engines.layers import checkpointing
from peft_methods.engines.resumption import (
    Keeper,
    KeepsEpochs,
    TrainingState,
    go_on,
    put_back_optimizer,
    put_back_random,
)
from peft_methods.methods import TRAINED, Method
from peft_methods.recipe import Budget, Recipe
from peft_methods.rows import Rows


class StockTrainer(Trainer):
    """Cross-entropy plus the method's own term; batches in an order that the seed alone decides, grouped by length or not."""

    autocasts = True  # whether the Trainer's mixed precision is what the steps use

    def __init__(  # noqa: PLR0917  # the last four are the Trainer's, in its order
        self,
        method: Method,
        head: tuple[str, ...],
        model: nn.Module,
        arguments: TrainingArguments,
        collate: Collator,
        rows: Rows,
        *,
        budget: Budget,
        listener: Listener,
    ) -> None:
        super().__init__(model, arguments, collate, rows)
        self.method, self.head, self.budget, self.listener = method, head, budget, listener
        self.model_accepts_loss_kwargs = (
            False  # the loss below is a mean: accumulation has to divide it
        )
        self._loss_sum: torch.Tensor | float = 0.0
        self._right: torch.Tensor | int = 0
        self._rows_of_step, self._batches_of_step = (
            0,
            1,
        )  # of the optimizer step at work; no rows outside of any
        self.order = torch.Generator().manual_seed(self.args.seed)
        self.resumed: TrainingState | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        if self.budget.padding == "fixed":
            return RandomSampler(self.train_dataset, generator=self.order)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch, lengths=self.train_dataset.lengths, generator=self.order)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """All but biases and norms, by what they are: by name an adapter within `LayerNorm` would pass for a norm."""
        return [
            name for name in get_parameter_names(model, [nn.LayerNorm]) if not name.endswith("bias")
        ]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the Trainer's optimizer, split further by the method's parameter groups."""
        if self.optimizer is not None:
            return self.optimizer
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        assert isinstance(self.model, nn.Module)
        special = [
            (set(own.parameters), own.settings())
            for own in self.method.param_groups(self.model, self.head)
        ]
        for group in list(optimizer.param_groups):
            for members, settings in special:
                chosen = [one for one in group["params"] if one in members]
                group["params"] = [one for one in group["params"] if one not in members]
                optimizer.add_param_group({**group, "params": chosen, **settings})
        return optimizer

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The batches of one optimizer step. The last of an epoch may be shorter than the others."""
        batches, items = super().get_batch_samples(*arguments)
        self._rows_of_step = sum(batch.get("rows", len(batch["labels"])) for batch in batches)
        self._batches_of_step = len(batches)
        return batches, items

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> torch.Tensor:
        """Mean cross-entropy of the batch; its sum, and how many rows were right, stay on the device for the epoch's mean.

        A batch counts by its rows: accumulated ones give the gradient that one batch of all their rows would.
        """
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        loss = F.cross_entropy(logits.float(), labels)
        self._loss_sum = self._loss_sum + loss.detach() * len(labels)
        self._right = self._right + (logits.detach().argmax(-1) == labels).sum()
        loss = loss * (len(labels) * self._batches_of_step / (self._rows_of_step or len(labels)))
        extra = self.method.penalty(model)
        return loss if extra is None else loss + extra

    def step_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """One step outside of the Trainer's loop."""
        optimizer.step()

    def take_sums(self) -> tuple[float, int]:
        """Cross-entropy (nats) of all rows since last asked, and how many of them were right."""
        sums = float(self._loss_sum), int(self._right)
        self._loss_sum, self._right = 0.0, 0
        return sums

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: the Trainer would walk through all parameters at every step for a sum that nobody reads."""
        return 0

    def loss_scale(self) -> dict[str, Any]:
        """fp16's loss scale as JSON values; empty without one."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else scaler.state_dict()

    def set_loss_scale(self, values: dict[str, Any]) -> None:
        """Put it back."""
        if values:
            self.accelerator.scaler.load_state_dict(values)

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """Nothing: `go_on` has put the weights back."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.resumed is not None:
            put_back_optimizer(self, self.resumed)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.resumed is not None:
            put_back_random(self, self.resumed)
        self.resumed = None  # its tensors are copied


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
    keeper: Keeper | None = None,
    trainer_class: type[StockTrainer] = StockTrainer,
) -> Training:
    """Train within the recipe's budget and leave the model with its best epoch's weights (also in TRAINED).

    `head` names the modules that `method.head_learning_rate` is for. A `keeper` gets every epoch's state; training goes on
    from the one that it has, and ends as if it had never been interrupted.
    """
    collate, best, budget = collator_of(recipe, tokenizer), workdir / TRAINED, recipe.budget
    set_product_precision(budget.precision)
    arguments = arguments_of(
        recipe, method, seed, device, workdir, autocast=trainer_class.autocasts
    )
    trainer = trainer_class(
        method, head, model, arguments, collate, data.train, budget=budget, listener=listener
    )
    judge = Judge(trainer, data, recipe, collate, listener, best=best)
    trainer.add_callback(judge)
    listener.enter("warm_up")
    with checkpointing(model, on=budget.gradient_checkpointing):
        warm_up(trainer, data, collate, recipe, listener)
        reached = None
        if keeper is not None:
            trainer.add_callback(KeepsEpochs(trainer, judge, listener, keeper))
            reached = go_on(trainer, judge, listener, keeper, workdir / "reached")
        trainer.train(resume_from_checkpoint=reached)
    listener.enter("save")
    assert judge.best is not None, "at least one epoch was judged"
    if judge.best is not judge.results[-1]:
        load_trainable(model, best)
    epochs = len(judge.results)
    return Training(
        epochs=tuple(judge.results),
        best_epoch=judge.best.epoch,
        steps=judge.steps,
        samples=epochs * len(data.train),
        tokens=epochs * int(sum(data.train.lengths)),
        decay=judge.best_decay,
    )


def warm_up(
    trainer: StockTrainer, data: TokenData, collate: Collator, recipe: Recipe, listener: Listener
) -> None:
    """Two whole steps on the longest batch, the worst case for memory; the second with optimizer state in place.

    Gradients are zeroed before the optimizer sees them and its rate is 0, so no weight changes; random state is put
    back and the optimizer thrown away, so training is the same with and without it. With accumulation, gradients are in
    place from the second batch of a step on: so they are here, as zeros.
    """
    longest = sorted(range(len(data.train)), key=data.train.lengths.__getitem__, reverse=True)[
        : recipe.budget.batch_size
    ]
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
    trainer: StockTrainer,
    batch: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    trace: WorstStep,
) -> None:
    """A training step that leaves every weight as it is."""
    model = trainer.model
    assert isinstance(model, nn.Module)
    device = next(model.parameters()).device
    with autocast(device, recipe.budget.precision):
        loss = trainer.compute_loss(model, on_device(batch, device))
    torch.autograd.backward(loss)
    trace.backward_done()
    trained = [p for p in model.parameters() if p.grad is not None]
    nn.utils.clip_grad_norm_(trained, recipe.budget.max_grad_norm)
    for parameter in trained:
        assert parameter.grad is not None
        parameter.grad.zero_()
    trainer.step_optimizer(optimizer)


def arguments_of(
    recipe: Recipe, method: Method, seed: int, device: str, workdir: Path, *, autocast: bool = True
) -> TrainingArguments:
    """The recipe's budget in the Trainer's words, everything else that it does switched off."""
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
        bf16=autocast and budget.precision == "bf16",
        fp16=autocast and budget.precision == "fp16",
        seed=seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        accelerator_config={
            "non_blocking": device != "cpu"
        },  # or the host would wait for each batch's copy, and so for the step before it
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it would read the loss off the device at every step
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
