"""OFT: inputs of frozen matrices are rotated in blocks (PEFT's, version 2)."""

from __future__ import annotations

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
class OFT(TargetedPeftMethod):
    """A trained rotation of each block of `block_size` inputs of the targets.

    `use_cayley_neumann` computes the rotations by a short series, which is fast and not quite
    orthogonal, instead of by an inverse.
    """

    info = MethodInfo(
        name="oft",
        title="OFT",
        family="orthogonal",
        order=0,
        paper="Qiu et al. 2023, arXiv:2306.07280",
        citations=("qiu2023oft",),
        trained="rotations of blocks of a matrix's inputs",
        about=(
            "multiplies frozen matrices by trained orthogonal ones, made of small blocks. "
            "Angles between the rows of a matrix stay nearly as they were."
        ),
        aliases=r"\bc?oft(v2)?\b|orthogonal (fine-?)?tuning",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={**AS_LORA, "decoder": UNTUNED},
    )
    takes_transposed = False

    block_size: Count = 32
    use_cayley_neumann: bool = True

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The rotations start as the identity."""
        from peft import OFTConfig

        return OFTConfig(
            **self.common(model, context),
            r=0,
            oft_block_size=self.block_size,
            use_cayley_neumann=self.use_cayley_neumann,
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """inputs * (block_size - 1) / 2 for each linear layer in the targets."""
        sizes = architecture.linear_sizes(self.targets)
        return sum(inputs for inputs, _ in sizes) * (self.block_size - 1) // 2

    def misfit(self, architecture: Architecture) -> str | None:
        """Blocks have to divide the inputs. PEFT would change their size."""
        return self.does_not_divide("block_size", architecture, lambda size: size[:1])

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Settings that fit the matrices of a tiny model."""
        return {"block_size": 8}
