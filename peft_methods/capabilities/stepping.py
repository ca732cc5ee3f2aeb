"""Trainings whose losses are kept step by step, with each engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from peft_methods.capabilities.toy import Trial
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.engine import EpochResult, NoTrace, PeakStep, Training
from peft_methods.training.registry import DEFAULT, ENGINES
from peft_methods.training.trainer import loop

# Without a GPU, captured steps are called directly. Layers are not compiled: that takes longer than
# all other checks together, and tests of the engine do it.
TRAINERS: dict[str, type[loop.RunTrainer]] = {
    DEFAULT: loop.RunTrainer,
    next(name for name in ENGINES if name != DEFAULT): CudaGraphsTrainer,
}


class Ignoring:
    """An observer whose events nobody reads."""

    def enter(self, phase: str) -> None:
        """Do nothing."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Do nothing."""

    def epoch(self, result: EpochResult) -> None:
        """Do nothing."""

    def record_engine_tensors(self, tensors: Sequence[torch.Tensor]) -> None:
        """Do nothing."""

    def peak_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> AbstractContextManager[PeakStep]:
        """Return callbacks of a step that is not traced."""
        return nullcontext(NoTrace())

    def measured(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def take_over(self, measured: dict[str, Any]) -> None:
        """Do nothing."""


def train(trial: Trial, work: Path, engine: str = DEFAULT) -> tuple[Training, tuple[float, ...]]:
    """Train with an engine. Return the result and the loss of each step."""
    losses: list[float] = []
    trainer: Any = TRAINERS[engine]

    class Logged(trainer):
        compile_layers = False

        def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
            loss: torch.Tensor = super().training_step(*arguments, **options)
            losses.append(float(loss))
            return loss

    work.mkdir(parents=True, exist_ok=True)
    training = loop.train(trial.job(work), Ignoring(), trainer_class=Logged)
    return training, tuple(losses)


class NothingDrawn(TorchFunctionMode):
    """Context manager in which dropout keeps everything, and noise is one everywhere.

    An engine that packs rows draws for other shapes than one that pads them, so what is drawn
    cannot be compared.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Replace the functions that draw."""
        if function is nn.functional.dropout:
            return args[0]
        if function in (torch.randn_like, torch.rand_like):
            return torch.ones_like(args[0])
        return function(*args, **(kwargs or {}))
