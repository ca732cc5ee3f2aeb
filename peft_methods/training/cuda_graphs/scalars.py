"""Scalars that captured steps read and write, and the loss scale for fp16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

# Steps without overflow before the loss scale doubles, as in torch.amp.GradScaler.
GROWTH_INTERVAL = 2000
FIRST_LOSS_SCALE = 65536.0


@dataclass
class Scalars:
    """Scalar inputs and outputs of a step, at fixed addresses.

    Inputs: `per_example` is 1 / (examples of the optimizer step), `per_batch` is 1 / (its batches).
    Outputs: `loss` is this batch's part of the step's loss. `loss_sum` and `correct` are the loss
    of all examples and the number of right answers since the last reset; `has_correct` is false
    for a task without right and wrong. `norm` is the gradient norm before clipping.
    """

    device: torch.device
    per_example: torch.Tensor = field(init=False)
    per_batch: torch.Tensor = field(init=False)
    loss: torch.Tensor = field(init=False)
    loss_sum: torch.Tensor = field(init=False)
    correct: torch.Tensor = field(init=False)
    norm: torch.Tensor = field(init=False)
    has_correct: bool = False
    _sent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("per_example", "per_batch", "loss", "loss_sum", "correct", "norm"):
            setattr(self, name, torch.zeros((), device=self.device))

    def take_sums(self) -> tuple[float, int | None]:
        """Return the summed loss and the number of right answers, if any. Reset both."""
        sums = float(self.loss_sum), int(self.correct) if self.has_correct else None
        self.loss_sum.zero_()
        self.correct.zero_()
        return sums

    def send(self, **values: float) -> None:
        """Write changed values to the tensors that steps read."""
        for name, value in values.items():
            if self._sent.get(name) != value:
                getattr(self, name).fill_(value)
                self._sent[name] = value


class LossScale:
    """Dynamic loss scale for fp16 (Micikevicius et al. 2018).

    The loss is multiplied by a factor. It halves on overflow and doubles after GROWTH_INTERVAL
    steps without overflow.
    """

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), FIRST_LOSS_SCALE, device=device)
        self.overflow = torch.zeros((), device=device)
        self._good_steps = torch.zeros((), dtype=torch.int32, device=device)

    def unscale(self, gradients: Sequence[torch.Tensor]) -> None:
        """Divide the gradients by the factor. Set `overflow` if any of them is not finite."""
        self.overflow.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(
            list(gradients), self.overflow, self.factor.reciprocal()
        )

    def update(self) -> None:
        """Adapt the factor. Call this after the optimizer step."""
        torch._amp_update_scale_(
            self.factor, self._good_steps, self.overflow, 2.0, 0.5, GROWTH_INTERVAL
        )

    def state(self) -> dict[str, Any]:
        """Return factor and step count as JSON values."""
        return {"factor": float(self.factor), "good_steps": int(self._good_steps)}

    def restore(self, factor: float = FIRST_LOSS_SCALE, good_steps: int = 0) -> None:
        """Restore the state returned by `state`, or the initial one, in place."""
        self.factor.fill_(factor)
        self._good_steps.fill_(good_steps)
