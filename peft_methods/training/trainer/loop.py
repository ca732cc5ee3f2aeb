"""The trainer engine: Hugging Face's Trainer for training alone. A callback evaluates epochs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.data import RandomSampler, Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler, get_parameter_names

from peft_methods.methods.base import TRAINED
from peft_methods.models.parameters import load_trainable
from peft_methods.models.ranks import is_sharded, rank, unwrapped
from peft_methods.tasks.base import LossSum
from peft_methods.training.activation_checkpointing import checkpointing
from peft_methods.training.collate import TrainingCollator, make_collator, training_collator
from peft_methods.training.engine import (
    Checkpointer,
    Observer,
    Training,
    TrainingJob,
    TrainingState,
)
from peft_methods.training.evaluation import EpochEvaluator
from peft_methods.training.features import StoredFeatures
from peft_methods.training.optimizers import optimizer_of, split_groups
from peft_methods.training.packing import check_packing
from peft_methods.training.precision import autocast, set_matmul_precision
from peft_methods.training.state import (
    CheckpointCallback,
    restore_optimizer,
    restore_random_state,
    resume,
)
from peft_methods.training.trainer.after_step import AfterStep
from peft_methods.training.trainer.warm_up import warm_up

SEEDS_APART = 1_000_003  # between the seeds of two ranks' dropout


class RunTrainer(Trainer):
    """Hugging Face's Trainer with the method's loss, optimizer groups and batch order.

    The loss is the task's plus the method's penalty. With dynamic padding, batches are of rows of
    similar length. The order of rows and the dropout masks have a random stream each
    (`Budget.vary`): the Trainer seeds torch's, which draws the masks, by its argument `seed`.
    """

    autocasts = True  # whether the steps use the Trainer's mixed precision
    packing: object | None = None  # how an engine keeps packed rows apart, if it does so itself

    def __init__(self, job: TrainingJob, arguments: TrainingArguments, observer: Observer) -> None:
        collate: Any = training_collator(job.recipe, job.tokenizer)
        rows = job.data.train
        self.features = StoredFeatures(job) if job.method.info.stores_features else None
        if self.features is not None:
            collate, rows = self.features.collate, self.features.rows
        super().__init__(job.model, arguments, collate, rows)
        self.job, self.observer, self._plain_collate = job, observer, collate
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(self.args)
        self.optimizer_cls_and_kwargs = optimizer_of(job.method, job.model, kind, settings)
        # The loss below is a mean, so the Trainer has to divide it when it accumulates.
        self.model_accepts_loss_kwargs = False
        self._loss_sum: torch.Tensor | float = 0.0
        self._correct: torch.Tensor | int = 0
        self._has_correct = False
        # Of the current optimizer step; 0 examples outside of any step.
        self._examples_of_step, self._batches_of_step = 0, 1
        self._processed_tokens = 0
        self.order = torch.Generator().manual_seed(job.seed_of("data_order"))
        self.resumed: TrainingState | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        if self.job.recipe.budget.padding != "dynamic":
            return RandomSampler(self.train_dataset, generator=self.order)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch, lengths=self.train_dataset.lengths, generator=self.order)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return all parameters but biases and norms.

        Norms are found by their class: by name, an adapter within `LayerNorm` would look like one.
        """
        return [
            name for name in get_parameter_names(model, [nn.LayerNorm]) if not name.endswith("bias")
        ]

    def create_optimizer(self, *model: nn.Module) -> torch.optim.Optimizer:
        """Create the method's kind of optimizer, split further by its parameter groups.

        The first releases of transformers 5 take no `model`.
        """
        if self.optimizer is not None:
            return self.optimizer
        optimizer: torch.optim.Optimizer = super().create_optimizer(*model)
        assert isinstance(self.model, nn.Module)
        split_groups(optimizer, self.job.method.param_groups(self.model, self.job.head))
        return optimizer

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """Return the batches of one optimizer step. The last step of an epoch may have fewer."""
        batches, items = super().get_batch_samples(*arguments)
        self._examples_of_step = self.examples_in(batches)
        self._batches_of_step = len(batches)
        count = self.features.processed_tokens if self.features else _tokens_in
        self._processed_tokens += sum(map(count, batches))
        return batches, items

    def examples_in(self, batches: Sequence[dict[str, Any]]) -> int:
        """Return the number of examples in the loss of these batches."""
        return sum(map(self.job.task.examples_in_batch, batches))

    def share_of_step(self, examples: int) -> float:
        """Return the weight of a batch with this number of examples in the optimizer step."""
        return examples * self._batches_of_step / (self._examples_of_step or examples or 1)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> torch.Tensor:
        """Return the mean loss of the batch plus the method's penalty.

        The sums stay on the device until the epoch's mean is computed. Batches are weighted by
        their examples, so accumulated batches give the same gradient as one batch of all of them.
        """
        # accelerate casts in the forward pass alone; the loss may project to the vocabulary later.
        with self.computing():
            found = self.task_loss(model, inputs)
        examples = self.job.task.examples_in_batch(inputs)
        self._loss_sum = self._loss_sum + found.total.detach()
        if found.correct is not None:
            self._correct = self._correct + found.correct
            self._has_correct = True
        loss = found.mean * self.share_of_step(examples)
        extra = self.job.method.penalty(unwrapped(model))
        return loss if extra is None else loss + extra

    def task_loss(self, model: nn.Module, inputs: dict[str, Any]) -> LossSum:
        """Return the task's loss of a batch."""
        return (self.features or self.job.task).loss(model, inputs)

    def computing(self) -> AbstractContextManager[Any]:
        """Context manager of forward passes and losses: the precision of their products."""
        return autocast(self.args.device, self.job.recipe.budget.precision)

    def holding_weights(self) -> AbstractContextManager[Any]:
        """Context manager around the training: how weights are held."""
        return nullcontext()

    def warming_up(self) -> AbstractContextManager[TrainingCollator]:
        """Context manager around the warm-up. Yields what makes its batch."""
        return nullcontext(self._plain_collate)

    def wrap(self, batch: dict[str, Any]) -> None:
        """Do nothing: there is no other rank to exchange gradients with."""

    def step_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Run one optimizer step outside the Trainer's loop."""
        optimizer.step()

    def take_sums(self) -> tuple[float, int | None]:
        """Return the summed loss and the number of right answers, if any. Reset both."""
        sums = float(self._loss_sum), int(self._correct) if self._has_correct else None
        self._loss_sum, self._correct = 0.0, 0
        return sums

    def loss_so_far(self) -> torch.Tensor | float:
        """Return the summed loss since the last `take_sums`, on the device."""
        return self._loss_sum

    def take_processed_tokens(self) -> int:
        """Return the number of tokens in the batches since the last call, padding included."""
        found, self._processed_tokens = self._processed_tokens, 0
        return found

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0. The Trainer would visit all parameters at every step for an unused sum."""
        return 0

    def loss_scale(self) -> dict[str, Any]:
        """Return the fp16 loss scale as JSON values; empty for other precisions."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else scaler.state_dict()

    def set_loss_scale(self, values: dict[str, Any]) -> None:
        """Restore the loss scale returned by `loss_scale`."""
        if values:
            self.accelerator.scaler.load_state_dict(values)

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """Do nothing: `resume` has restored the weights."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.resumed is not None:
            restore_optimizer(self, self.resumed)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.resumed is not None:
            restore_random_state(self, self.resumed)
        self.resumed = None  # its tensors have been copied


def train(
    job: TrainingJob,
    observer: Observer,
    checkpointer: Checkpointer | None = None,
    *,
    trainer_class: type[RunTrainer] = RunTrainer,
) -> Training:
    """Train within the recipe's budget. The model ends with the weights of its best epoch.

    These weights are also saved as TRAINED in the job's `workdir`. A `checkpointer` saves every
    epoch's state; if it already has one, training resumes from it with the same result as without
    the interruption.
    """
    set_matmul_precision(job.recipe.budget.precision)
    collate, best = make_collator(job.recipe, job.tokenizer), job.workdir / TRAINED
    trainer = trainer_class(job, trainer_arguments(job, autocast=trainer_class.autocasts), observer)
    if job.recipe.budget.padding == "packed" and trainer.packing is None:
        check_packing(job.model, job.method.title)  # a method may change how rows are read
    evaluator = EpochEvaluator(trainer, job.data, job.recipe, collate, observer, best=best)
    trainer.add_callback(evaluator)
    if job.method.acts_after_steps():
        trainer.add_callback(AfterStep(job))
    if job.method.acts_after_steps() or trainer.features is not None:
        checkpointer = None  # what is known of earlier steps is in no checkpoint
    observer.enter("warm_up")
    checkpointed = job.recipe.budget.gradient_checkpointing
    with checkpointing(job.model, on=checkpointed), trainer.holding_weights():
        with trainer.warming_up() as warm:
            communication = warm_up(trainer, warm, observer)
        checkpoint = None
        if checkpointer is not None:
            trainer.add_callback(CheckpointCallback(trainer, evaluator, observer, checkpointer))
            folder = job.workdir / "reached"
            checkpoint = resume(trainer, evaluator, observer, checkpointer, folder)
        trainer.train(resume_from_checkpoint=checkpoint)
    trainer.features = None  # the trainer is freed later, and evaluations do without their memory
    observer.enter("save")
    assert evaluator.best is not None, "at least one epoch was evaluated"
    if evaluator.best is not evaluator.results[-1]:
        load_trainable(job.model, best)
    epochs = len(evaluator.results)
    tokens = epochs * int(sum(job.data.train.lengths))
    return Training(
        epochs=tuple(evaluator.results),
        best_epoch=evaluator.best.epoch,
        steps=evaluator.steps,
        samples=epochs * len(job.data.train),
        tokens=tokens,
        padding=evaluator.processed_tokens - tokens,
        decay=tuple(evaluator.best_decay),
        communication_seconds=communication,
    )


def _tokens_in(batch: dict[str, Any]) -> int:
    return int(batch["input_ids"].numel())


def trainer_arguments(job: TrainingJob, *, autocast: bool = True) -> TrainingArguments:
    """Translate the recipe's budget to Trainer arguments. Evaluation, saving and logs are off."""
    budget, on_cpu = job.recipe.budget, job.device == "cpu"
    return TrainingArguments(
        output_dir=str(job.workdir / "trainer"),
        num_train_epochs=budget.epochs,
        per_device_train_batch_size=budget.batch_size,
        gradient_accumulation_steps=budget.gradient_accumulation,
        learning_rate=job.method.learning_rate,
        weight_decay=budget.weight_decay,
        lr_scheduler_type=budget.schedule,
        warmup_steps=budget.warmup_ratio,  # the Trainer reads values < 1 as a share of all steps
        max_grad_norm=budget.max_grad_norm,
        bf16=autocast and budget.precision == "bf16",
        fp16=autocast and budget.precision == "fp16",
        seed=(job.seed_of("dropout") + SEEDS_APART * rank()) % 2**32,
        data_seed=job.seed_of("data_order"),  # of the order where it is random
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        # A blocking copy of each batch would wait for the step before it.
        accelerator_config={
            "non_blocking": not on_cpu,
            "use_configured_state": is_sharded(job.model),
        },
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it would copy the loss to the host at every step
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
