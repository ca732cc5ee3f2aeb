"""The interface of all engines: callbacks they call and per-epoch results they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from peft_methods.recipes.schema import Budget
from peft_methods.tasks.base import Task
from peft_methods.tasks.registry import TASKS
from peft_methods.training.activation_checkpointing import layers_of
from peft_methods.training.distributed.support import check_versions
from peft_methods.training.optimizers import replay_problem_of
from peft_methods.training.packing import check_packing
from peft_methods.utils.errors import ModelError, OptionError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peft_methods.data.facts import TokenData
    from peft_methods.methods.base import Method
    from peft_methods.recipes.schema import Recipe
    from peft_methods.training.phases import EnginePhase


@dataclass(frozen=True)
class TrainingState:
    """State of a training between two epochs: host tensors by dotted names, and JSON values."""

    epoch: int
    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]

    def part(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names begin with `name.`, without that prefix."""
        return {
            key.removeprefix(f"{name}."): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(f"{name}.")
        }


@dataclass(frozen=True)
class EpochResult:
    """One epoch's losses (the task's, mean of an example) and its validation scores.

    `selection` is the validation score by the recipe's selection metric. Accuracies and `selection`
    are None if quality cannot be evaluated: random weights, or outputs that are not finite.
    Accuracies are None for tasks without right and wrong answers, too.
    `train_accuracy` is computed during training: with dropout, and with weights that change from
    step to step. `learning_rate` is the scheduled rate at the end of the epoch (first parameter
    group). `first_loss` is the loss of all examples of the epoch's first step, summed.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    selection: float | None = None
    learning_rate: float | None = None
    train_accuracy: float | None = None
    first_loss: float | None = None

    def is_better_than(self, other: EpochResult | None, sign: int = 1) -> bool:
        """Whether to keep this epoch's weights instead of those of `other`, an earlier epoch.

        `sign` is that of the selection metric. Epochs with a validation score come first. If
        neither has one, the later epoch wins.
        """
        if other is None or other.selection is None:
            return True
        if self.selection is None:
            return False
        assert self.validation_loss is not None
        assert other.validation_loss is not None
        here = sign * self.selection, -self.validation_loss
        return here > (sign * other.selection, -other.validation_loss)


@dataclass(frozen=True)
class Training:
    """Result of a training: the learning curve, the best epoch (1-based) and step counts.

    `steps` counts optimizer steps. `samples`, `tokens` and `padding` are totals over all trained
    epochs: tokens of examples, and tokens that only fill the batches. `decay` has for each group of
    parameters the factor that weight decay alone applied up to the best epoch.
    `communication_seconds` is the time in which a step over several GPUs exchanges weights or
    gradients, None where it was not measured.
    """

    epochs: tuple[EpochResult, ...]
    best_epoch: int
    steps: int
    samples: int
    tokens: int
    padding: int
    decay: tuple[float, ...]
    compiled_graphs: Mapping[str, int] = field(default_factory=dict)
    communication_seconds: float | None = None


@dataclass(frozen=True)
class TrainingJob:
    """Everything that an engine needs to train one run.

    The method is applied to `model` already. `head` names the modules of the head; `workdir` is
    scratch, where the trained weights of the best epoch are left as TRAINED.
    """

    model: nn.Module
    method: Method
    data: TokenData
    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    seed: int
    device: str
    workdir: Path

    @property
    def task(self) -> Task:
        """The task of the recipe: it has the loss."""
        return TASKS[self.recipe.task]

    def seed_of(self, part: str) -> int:
        """Return the seed of a random part of the training: see `Budget.vary`."""
        return self.recipe.budget.seed_of(part, self.seed)


class PeakStep(Protocol):
    """Callbacks of the peak step: one whole training step on the longest batch."""

    def backward_done(self) -> None:
        """Handle the end of the backward pass. Clipping and the optimizer step follow."""


class NoTrace:
    """Callbacks of a peak step whose memory is not traced."""

    def backward_done(self) -> None:
        """Do nothing."""


class Observer(Protocol):
    """Callbacks that an engine calls during training. Engines do not measure time or memory."""

    def enter(self, phase: str) -> None:
        """End the current phase and begin this one.

        It is warm_up, train, evaluate, save, or one of the engine's own phases.
        """

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Handle the end of step `step` of `steps`, in `epoch` (1-based)."""

    def epoch(self, result: EpochResult) -> None:
        """Handle the end of an epoch that was trained and evaluated."""

    def peak_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> AbstractContextManager[PeakStep]:
        """Context manager around the peak step: one whole step on the longest batch.

        It runs before training, when the optimizer state exists. With gradient accumulation the
        gradients of earlier batches exist too.
        """

    def record_engine_tensors(self, tensors: Sequence[torch.Tensor]) -> None:
        """Record tensors that the engine keeps on the device. The method alone does not need them.

        The engine calls this once, when it begins to keep them.
        """

    def measured(self) -> dict[str, Any]:
        """Return the measurements of the epochs so far, as JSON values."""

    def take_over(self, measured: dict[str, Any]) -> None:
        """Prepend the measurements of the process that trained the first epochs."""


class Checkpointer(Protocol):
    """Stores the states of a training while it runs."""

    def newest(self) -> TrainingState | None:
        """Return the state to resume from; None to train from the beginning."""

    def save(self, state: TrainingState) -> None:
        """Store this state and drop the one before."""


class Engine(Protocol):
    """Performs the training steps of a job. Plain class attributes serve as the properties."""

    @property
    def name(self) -> str:
        """The name in options and records."""

    @property
    def about(self) -> str:
        """A few words for the list of engines."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Old names, still read."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Kinds of devices it runs on: "cpu", "cuda"."""

    @property
    def priority(self) -> int:
        """`auto` takes the highest of those that run on the device."""

    @property
    def fallback(self) -> str | None:
        """The engine that takes its place if it fails."""

    @property
    def phases(self) -> tuple[EnginePhase, ...]:
        """The phases it has beyond those of every run."""

    @property
    def trains_on_several_gpus(self) -> bool:
        """Whether it trains one run over several GPUs."""

    @property
    def packs_decoders(self) -> bool:
        """Whether the examples of a decoder's batch follow one another, without padding."""

    @property
    def replays_steps(self) -> bool:
        """Whether its steps are recorded, so that no method can act between them."""

    def unsupported(self, config: Any, budget: Budget | None = None) -> str | None:
        """Return why the engine cannot train the model with this config and budget, or None."""

    def train(
        self, job: TrainingJob, observer: Observer, checkpointer: Checkpointer | None = None
    ) -> Training:
        """Train within the recipe's budget. The model ends with the weights of its best epoch.

        Raises `EngineUnfit` if the engine turns out unable to; the process is not reused then.
        """


def replay_problem(method: Method) -> str | None:
    """Return why an engine that replays steps cannot train the method, or None if it can."""
    if method.acts_after_steps():
        return f"{method.title} changes the model between steps"
    if method.info.stores_features:
        return f"{method.title} has other steps in its first epoch"
    return replay_problem_of(method)


def check_budget(budget: Budget, model: nn.Module, device: str) -> None:
    """Raise an error if the model or the GPU cannot be trained with this budget.

    Raises `OptionError` for TF32 on a GPU without it, for libraries too old for several GPUs, and
    `ModelError` for gradient checkpointing of a model without a list of layers, or for packed rows
    of one that mixes them up. The latter needs weights: a model on the meta device is not tried.
    """
    check_versions(budget)
    if (
        budget.precision == "tf32"
        and device.startswith("cuda")
        and torch.cuda.get_device_capability() < (8, 0)
    ):
        raise OptionError(
            f"budget.precision = 'tf32' needs an NVIDIA GPU with TF32 (Ampere or newer), "
            f"which {torch.cuda.get_device_name()} is not: set budget.precision = 'fp32'",
            setting="budget.precision",
        )
    if budget.gradient_checkpointing and not layers_of(model):
        raise ModelError(
            f"budget.gradient_checkpointing needs a model with a list of layers, "
            f"which {type(model).__name__} lacks: set budget.gradient_checkpointing = false",
            setting="budget.gradient_checkpointing",
        )
    if budget.padding == "packed" and next(model.parameters()).device.type != "meta":
        check_packing(model)
