"""The AdamW optimizer of captured steps, with its update inside the CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class ReplayedAdamW(torch.optim.AdamW):
    """AdamW whose update is part of a captured training step.

    `step` does nothing; `launch` performs the update and is captured. Learning rates stay plain
    numbers in the parameter groups, where schedulers and callbacks write them; `send_rates` copies
    them to the device. The fused kernel divides gradients by `grad_scale`, which also clips them,
    and skips the update if `found_inf` is 1.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.grad_scale: torch.Tensor | None = None
        self.found_inf: torch.Tensor | None = None
        self._rates: list[torch.Tensor] = []
        self._sent: list[float] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do nothing: the replayed graph has made the update."""

    def launch(self) -> None:
        """Run AdamW's step with the learning rates sent last."""
        plain = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            group["lr"], group["capturable"] = rate, rate.is_cuda
        super().step()
        for group, rate in zip(self.param_groups, plain, strict=True):
            group["lr"] = rate

    def send_rates(self, rates: Sequence[float] | None = None) -> None:
        """Copy these rates, or those of the groups, to the tensors that `launch` reads.

        The host does not wait for the device.
        """
        wanted = (
            [float(group["lr"]) for group in self.param_groups] if rates is None else list(rates)
        )
        if not self._rates:
            groups = self.param_groups  # one may be empty: biases have no weight decay
            device = next(one.device for group in groups for one in group["params"])
            self._rates = [torch.zeros((), device=device) for _ in self.param_groups]
        if wanted != self._sent:
            for tensor, rate in zip(self._rates, wanted, strict=True):
                tensor.fill_(rate)
            self._sent = wanted
