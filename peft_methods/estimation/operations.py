"""The operations of a training step, as a device would run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Operation:
    """One operation of torch (aten or a library's), with what it computes and moves.

    `name` is that of the operation without overload, e.g. "aten.mm". `flops` counts products of
    matrices and attention alone, as torch's FlopCounterMode does (0 for everything else).
    `read_bytes` and `written_bytes` are those of its arguments and results; views have 0.
    `shapes` are those of its tensor arguments, `dtype` that of its first result.
    `part` is "forward", "backward" or "optimizer".
    """

    name: str
    part: str
    flops: int
    read_bytes: int
    written_bytes: int
    dtype: torch.dtype | None
    shapes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class StepProgram:
    """The operations of one training step on a batch, in order.

    `rows` and `tokens` are those of the batch, padding included.
    """

    operations: Sequence[Operation]
    rows: int
    tokens: int

    @property
    def flops(self) -> int:
        """The FLOPs of all products."""
        return sum(one.flops for one in self.operations)
