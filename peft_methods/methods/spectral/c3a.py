"""C3A: updates are block-circulant matrices (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class C3A(TargetedPeftMethod):
    """A circulant block, which is one vector, for each `block_size` inputs and outputs."""

    info = MethodInfo(
        name="c3a",
        title="C3A",
        family="spectral",
        order=2,
        paper="Chen et al. 2024, arXiv:2407.19342",
        citations=("chen2024c3a",),
        trained="block-circulant updates",
        about=(
            "adds to frozen matrices a trained update of circulant blocks. A block is given "
            "by one vector and computed by a fast Fourier transform."
        ),
        aliases=r"\bc3a\b|circular convolution",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=None,  # the update starts at random, as in the paper
        learning_rates={
            "encoder": DefaultRate(
                3e-1, "PEFT's example, for RoBERTa-base on MRPC; the head's is LoRA's", head=5e-4
            ),
            "decoder": compared(3e-1),
        },
    )
    takes_transposed = False
    not_converted = ""

    block_size: Count = 64

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The blocks start at random."""
        from peft import C3AConfig

        return C3AConfig(**self.common(model, context), block_size=self.block_size)

    def expected_trainable(self, architecture: Architecture) -> int:
        """inputs * outputs / block_size for each linear layer in the targets."""
        sizes = architecture.linear_sizes(self.targets)
        return sum(inputs * outputs for inputs, outputs in sizes) // self.block_size

    def misfit(self, architecture: Architecture) -> str | None:
        """Blocks have to divide inputs and outputs."""
        return self.does_not_divide("block_size", architecture)

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Settings that fit the matrices of a tiny model."""
        return {"block_size": 8}
