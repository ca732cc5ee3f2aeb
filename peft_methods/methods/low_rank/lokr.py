"""LoKr: the Kronecker product of a small matrix and a low-rank one (PEFT's)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA, compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LoKr(TargetedPeftMethod):
    """`decompose_factor` is the size of the small matrix; None: near the root of each side."""

    info = MethodInfo(
        name="lokr",
        title="LoKr",
        family="low_rank",
        order=31,
        paper="Yeh et al. 2024, arXiv:2309.14859",
        citations=("yeh2024lycoris",),
        trained="Kronecker products of a small and a low-rank matrix",
        about=(
            "adds to each weight matrix the Kronecker product of a small matrix and a larger one, "
            "which is itself of low rank."
        ),
        aliases=r"\blokr\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={**AS_LORA, "decoder": compared(3e-3)},
    )
    takes_transposed = False
    not_converted = ""

    rank: Count = 8
    alpha: Positive = 8
    decompose_factor: Count | None = None
    decompose_both: bool = False
    rank_dropout: Dropout = 0.0
    module_dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The small matrix starts at zero, so the outputs are unchanged at first."""
        from peft import LoKrConfig

        return LoKrConfig(
            **self.common(model, context),
            r=self.rank,
            alpha=self.alpha,
            decompose_factor=self.decompose_factor or -1,
            decompose_both=self.decompose_both,
            rank_dropout=self.rank_dropout,
            module_dropout=self.module_dropout,
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """Two matrices for each linear layer, or two factors where these have fewer weights."""
        return sum(self._weights(*sizes) for sizes in architecture.linear_sizes(self.targets))

    def _weights(self, inputs: int, outputs: int) -> int:
        (n, big_n), (m, big_m) = self._split(inputs), self._split(outputs)
        is_split = self.decompose_both and self.rank < max(m, n) / 2
        small = self.rank * (m + n) if is_split else m * n
        is_low = self.rank < max(big_m, big_n) / 2
        return small + (self.rank * (big_m + big_n) if is_low else big_m * big_n)

    def _split(self, size: int) -> tuple[int, int]:
        """Return two factors of a size, the smaller one first, as PEFT chooses them.

        They are the factor and the rest where it divides, else the nearest to the root among those
        up to the factor.
        """
        factor = self.decompose_factor
        if factor is not None and size % factor == 0:
            return factor, size // factor
        limit = min(math.isqrt(size), factor or size)
        small = next(one for one in range(limit, 0, -1) if size % one == 0)
        return small, size // small
