"""SHiRA: a sparse update of frozen matrices at random places (PEFT's)."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, drawn_seed, with_sparse_tensors
from peft_methods.methods.rates import AS_LORA, compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class SHiRA(TargetedPeftMethod):
    """As many weights of a matrix as LoRA of this `rank` would have, drawn at random."""

    info = MethodInfo(
        name="shira",
        title="SHiRA",
        family="selective",
        order=10,
        paper="Bhardwaj et al. 2024, arXiv:2406.13175",
        citations=("bhardwaj2024shira",),
        trained="single weights at random places of chosen matrices",
        about=(
            "trains a small random share of the weights of chosen matrices and leaves the "
            "others frozen. The update is sparse, and its rank is not limited."
        ),
        aliases=r"shira|sparse high[\s_-]?rank",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        reads_weights=True,
        learning_rates={**AS_LORA, "decoder": compared(3e-4)},
    )
    takes_transposed = False

    rank: Count = 32

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The places follow the seed of the run. The update starts at zero."""
        from peft import ShiraConfig

        return ShiraConfig(
            **self.common(model, context),
            r=self.rank,
            random_seed=drawn_seed(),
        )

    def wrapping(self) -> AbstractContextManager[Any]:
        """The update is a sparse tensor."""
        return with_sparse_tensors()

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank * (inputs + outputs) for each linear layer in the targets."""
        return self.rank * sum(map(sum, architecture.linear_sizes(self.targets)))

    def misfit(self, architecture: Architecture) -> str | None:
        """A matrix has to have that many weights."""
        return self.too_large("rank", architecture, lambda size: math.prod(size) // sum(size))

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Settings that fit the matrices of a tiny model."""
        return {"rank": 4}
