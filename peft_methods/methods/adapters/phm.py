"""The modules of Compacter: bottlenecks of parametrised hypercomplex multiplications (PHM)."""

from __future__ import annotations

import torch
from torch import nn

SPREAD = 1e-4  # the standard deviation of the shared factors at the start, as in the authors' code


def shared_factors(count: int) -> nn.Parameter:
    """Return the first factors of all Kronecker products, (count, count, count)."""
    return nn.Parameter(torch.randn(count, count, count) * SPREAD)


class PHMLinear(nn.Module):
    """x @ W + b, (…, inputs) -> (…, outputs), with W the sum of A_i ⊗ (s_i t_i).

    A_i are the shared `factors` (n, n, n), s_i of shape (inputs/n, rank), t_i (rank, outputs/n).
    """

    def __init__(self, inputs: int, outputs: int, rank: int, factors: nn.Parameter) -> None:
        super().__init__()
        count = len(factors)
        self.factors = factors
        self.left = nn.Parameter(torch.empty(count, inputs // count, rank))
        self.right = nn.Parameter(torch.empty(count, rank, outputs // count))
        self.bias = nn.Parameter(torch.zeros(outputs))
        for weights in (*self.left, *self.right):
            nn.init.xavier_uniform_(weights)

    def weight(self) -> torch.Tensor:
        """Return W, (inputs, outputs)."""
        second = self.left @ self.right
        whole = torch.einsum("iab,icd->acbd", self.factors, second)
        return whole.flatten(2).flatten(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x @ W + b."""
        return nn.functional.linear(x, self.weight().T, self.bias)


class PHMBottleneck(nn.Module):
    """up(gelu(down(x))), (…, hidden) -> (…, hidden), without its residual."""

    def __init__(self, hidden: int, width: int, rank: int, factors: nn.Parameter) -> None:
        super().__init__()
        self.down = PHMLinear(hidden, width, rank, factors)
        self.activation = nn.GELU(approximate="tanh")
        self.up = PHMLinear(width, hidden, rank, factors)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the addend of the residual."""
        result: torch.Tensor = self.up(self.activation(self.down(x)))
        return result
