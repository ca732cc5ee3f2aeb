"""Trainings whose losses are kept step by step, with each engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

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


def train(
    trial: Trial, work: Path, engine: str = DEFAULT, at_end: Callable[[], Any] = lambda: None
) -> tuple[Training, tuple[float, ...]]:
    """Train with an engine. Return the result and the loss of each step.

    `at_end` is called after the last step, before the weights of the best epoch are restored.
    """
    losses: list[float] = []
    trainer: Any = TRAINERS[engine]

    class Logged(trainer):
        compile_layers = False

        def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
            loss: torch.Tensor = super().training_step(*arguments, **options)
            losses.append(float(loss))
            return loss

        def train(self, *arguments: Any, **options: Any) -> Any:
            done = super().train(*arguments, **options)
            at_end()
            return done

    work.mkdir(parents=True, exist_ok=True)
    training = loop.train(trial.job(work), Ignoring(), trainer_class=Logged)
    return training, tuple(losses)


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Context manager in which dropout keeps everything, and noise is one everywhere.

    An engine that packs rows draws for other shapes than one that pads them, so what is drawn
    cannot be compared. The functions are replaced also for activations that are computed again.
    """
    with (
        patch.object(torch, "randn_like", torch.ones_like),
        patch.object(torch, "rand_like", torch.ones_like),
        patch.object(nn.functional, "dropout", lambda input, *_, **__: input),
    ):
        yield
