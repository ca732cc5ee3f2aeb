"""Methods for tests of executors: their runs end in different ways, or do not end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext
from peft_methods.methods.selective.full import Full
from peft_methods.methods.selective.head_only import HeadOnly
from peft_methods.models import ranks

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Misbehaving(HeadOnly):
    """Head only, but `way` is done when the method is applied: raise, die, hang or nothing.

    'GPU: message' raises an error with this message on this GPU ('any': on each), or does so.
    """

    way: str = ""

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Misbehave, or freeze the encoder."""
        gpu, _, message = self.way.partition(": ")
        is_there = gpu in {"any", os.environ.get("CUDA_VISIBLE_DEVICES")}
        if message and message != "die" and is_there:
            raise RuntimeError(message)
        if self.way == "raise":
            raise RuntimeError("raised on purpose")
        if self.way == "die" or (message == "die" and is_there):
            os.kill(os.getpid(), signal.SIGKILL)
        while self.way == "hang":
            time.sleep(0.01)
        return super().apply(model, context)


@dataclass(frozen=True, kw_only=True)
class MisbehavingRank(Full):
    """Full fine-tuning, but one of several ranks does something in a training step.

    With `once` it is done only after a file of that pattern in that folder exists, and while the
    folder has a file `armed`.
    """

    way: str
    number: int = 0
    once: tuple[str, str] | None = None

    def penalty(self, model: nn.Module) -> None:
        """Misbehave, or add nothing to the loss."""
        if ranks.rank() != self.number or not self._is_time():
            return
        if self.way == "raise":
            raise RuntimeError("raised on purpose")
        if self.way == "fill memory":
            raise MemoryError("filled on purpose")
        if self.way == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.way == "hang":
            time.sleep(0.01)

    def _is_time(self) -> bool:
        if self.once is None:
            return True
        folder, pattern = Path(self.once[0]), self.once[1]
        return (folder / "armed").exists() and any(folder.glob(pattern))


KEPT: list[object] = []  # what leaking methods leave alive


@dataclass(frozen=True, kw_only=True)
class Leaking(HeadOnly):
    """Head only, but `leak` is left behind when the method is applied to a run's model."""

    leak: str = ""

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Leave something behind, and freeze the encoder."""
        applied = super().apply(model, context)
        if self.leak:
            LEAKS[self.leak]()
        return applied


def _leave_hook() -> None:
    from torch.nn.modules.module import register_module_forward_hook

    register_module_forward_hook(lambda module, inputs, output: None)


def _leave_matrix() -> None:
    import torch

    KEPT.append(torch.zeros(2**20))


def _leave_dtype() -> None:
    import torch

    torch.set_default_dtype(torch.float64)


def _leave_function() -> None:
    from torch import nn

    before = nn.LayerNorm.forward

    def forward(self: nn.LayerNorm, input: torch.Tensor) -> torch.Tensor:
        return before(self, input)

    nn.LayerNorm.forward = forward  # type: ignore[method-assign]


def _leave_attention() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register("planted", print)


def _leave_random_state() -> None:
    import random

    import numpy as np
    import torch

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    os.environ["PLANTED"] = "1"
    os.chdir("/")


LEAKS = {
    "hook": _leave_hook,
    "matrix": _leave_matrix,
    "dtype": _leave_dtype,
    "function": _leave_function,
    "attention": _leave_attention,
    "random state": _leave_random_state,
}
