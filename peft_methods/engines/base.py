"""What every engine takes and gives: callbacks in, per-epoch results out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from peft_methods.engines.layers import layers_of
from peft_methods.errors import ModelError, OptionError
from peft_methods.recipe import Budget

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class EpochResult:
    """One epoch's losses (mean cross-entropy, nats) and the validation set's judgement by the recipe's metric.

    Where there is no quality to judge (random weights, or logits that are no numbers) accuracies and selection are None.
    `train_accuracy` is that of the rows as they were trained on: with dropout, and with weights that changed on the way.
    `learning_rate` is what the schedule has come to at the epoch's end (of the first group of parameters).
    """

    epoch: int
    train_loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    selection: float | None = None
    learning_rate: float | None = None
    train_accuracy: float | None = None

    def is_better_than(self, other: EpochResult | None) -> bool:
        """Whether this later epoch's weights are the ones to keep: those that could be judged, without any the last."""
        if other is None or other.selection is None:
            return True
        if self.selection is None:
            return False
        assert self.validation_loss is not None
        assert other.validation_loss is not None
        return (self.selection, -self.validation_loss) > (other.selection, -other.validation_loss)


@dataclass(frozen=True)
class Training:
    """What training left: the curve, the best epoch (1-based), and what its steps were.

    `steps` are optimizer steps; `samples` and `tokens` went through all epochs trained, padding not counted.
    """

    epochs: tuple[EpochResult, ...]
    best_epoch: int
    steps: int
    samples: int
    tokens: int
    decay: float


class WorstStep(Protocol):
    """What is told of one whole step on the longest batch."""

    def backward_done(self) -> None:
        """The backward pass has ended; clipping and the optimizer's step follow."""


class NoTrace:
    """A worst step that nobody traces."""

    def backward_done(self) -> None:
        """Nothing."""


class Listener(Protocol):
    """What an engine tells while it works. Engines know nothing of clocks or memory."""

    def enter(self, phase: str) -> None:
        """A phase (warm_up, capture, train, evaluate, save) begins now; the one before ends."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Step `step` of `steps` is done, in `epoch` (1-based)."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch is over and judged."""

    def worst_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> AbstractContextManager[WorstStep]:
        """Around one whole step on the longest batch, before training, with optimizer state in place.

        With accumulation the gradients of a step's earlier batches are in place too.
        """

    def engine_keeps(self, tensors: Sequence[torch.Tensor]) -> None:
        """The engine has these on the device from now on, which the method by itself would not."""

    def measured(self) -> dict[str, Any]:
        """What was measured of the epochs so far, as JSON values."""

    def take_over(self, measured: dict[str, Any]) -> None:
        """Put before this process's own figures those of one that trained the first epochs."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision as the recipe's precision means it: none for fp32."""
    if precision not in HALF:
        return nullcontext()
    return torch.autocast(device.type, HALF[precision])


def set_product_precision(precision: str) -> None:
    """Have this process round matrix products of fp32 numbers to TF32 where the recipe says so, and not otherwise.

    By the one setting that all of torch reads: after transformers' own the older ones raise when read, as the compiler does.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def refuse_unfit(budget: Budget, model: nn.Module, device: str) -> None:
    """Raise `OptionError` for TF32 on a GPU without it, `ModelError` for checkpointing without layers to checkpoint."""
    if (
        budget.precision == "tf32"
        and device.startswith("cuda")
        and torch.cuda.get_device_capability() < (8, 0)
    ):
        raise OptionError(
            f"budget.precision = 'tf32' needs an NVIDIA GPU with TF32 (Ampere or newer), which {torch.cuda.get_device_name()} is not: "
            f"--peft-set budget.precision=fp32"
        )
    if budget.gradient_checkpointing and not layers_of(model):
        raise ModelError(
            f"budget.gradient_checkpointing needs a model with a list of layers, which {type(model).__name__} lacks: "
            f"--peft-set budget.gradient_checkpointing=false"
        )


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """All trainable parameters by name, on the host."""
    return {
        name: p.detach().cpu().contiguous()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def put_trainable(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy these tensors into the parameters of their names."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in tensors:
                parameter.copy_(tensors[name])


def save_trainable(model: nn.Module, path: Path) -> int:
    """All trainable parameters by name, as safetensors; returns the file's bytes."""
    from safetensors.torch import save_file

    save_file(trainable(model), path)
    return path.stat().st_size


def load_trainable(model: nn.Module, path: Path) -> None:
    """Put saved parameters back into the model."""
    from safetensors.torch import load_file

    put_trainable(model, load_file(path))


def free_workspaces() -> bool:
    """Have the matrix library give back its scratch memory, one block a stream that computes; False where it cannot be asked to."""
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()
    return clear is not None
