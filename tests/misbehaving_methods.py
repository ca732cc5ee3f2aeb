"""Methods for tests of executors: their runs end in different ways, or do not end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext
from peft_methods.methods.selective.head_only import HeadOnly

if TYPE_CHECKING:
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
