"""BOFT: frozen matrices are multiplied by trained butterfly matrices (PEFT's)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA, UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class BOFT(TargetedPeftMethod):
    """Blocks of `boft_block_size` inputs are rotated, and outputs scaled.

    There is one butterfly factor: PEFT computes several only with a CUDA extension that it compiles
    on the spot, and one without a word where that fails.
    """

    info = MethodInfo(
        name="boft",
        title="BOFT",
        family="orthogonal",
        order=1,
        paper="Liu et al. 2024, arXiv:2311.06243",
        citations=("liu2024boft",),
        trained="rotations of blocks of inputs, and scales of outputs",
        about=(
            "multiplies frozen matrices by a product of sparse orthogonal ones and scales "
            "their outputs. With one factor, as here, it is OFT with scales."
        ),
        aliases=r"\bboft",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=1e-5,  # the bias is subtracted and added again
        learning_rates={**AS_LORA, "decoder": UNTUNED},
    )
    takes_transposed = False

    boft_block_size: Count = 4

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The rotations start as the identity, the scales at one."""
        from peft import BOFTConfig

        return BOFTConfig(
            **self.common(model, context),
            boft_block_size=self.boft_block_size,
            boft_block_num=0,
            boft_n_butterfly_factor=1,
        )

    @contextmanager
    def wrapping(self) -> Iterator[None]:
        """Keep PEFT from compiling its extension, which is for more than one factor."""
        from peft.tuners.boft import layer

        before, layer._FBD_CUDA = layer._FBD_CUDA, False
        try:
            yield
        finally:
            layer._FBD_CUDA = before

    def expected_trainable(self, architecture: Architecture) -> int:
        """boft_block_size * inputs + outputs for each linear layer in the targets."""
        sizes = architecture.linear_sizes(self.targets)
        return sum(self.boft_block_size * inputs + outputs for inputs, outputs in sizes)

    def misfit(self, architecture: Architecture) -> str | None:
        """Blocks have to divide the inputs."""
        return self.does_not_divide("boft_block_size", architecture, lambda size: size[:1])
