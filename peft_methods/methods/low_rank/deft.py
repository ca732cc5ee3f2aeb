"""DEFT: a low-rank part of frozen matrices is replaced (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA, UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class DEFT(TargetedPeftMethod):
    """Matrix W becomes (I - Q P) W + Q R, with P and R trained and Q made of P.

    With "relu", the gradient of half of P is zero at first but for rounding, from which AdamW makes
    steps of full size: losses of two engines or devices differ by up to 4e-3 after a few steps.
    """

    info = MethodInfo(
        name="deft",
        title="DEFT",
        family="low_rank",
        order=60,
        paper="Kumar et al. 2025, arXiv:2509.22793",
        citations=("kumar2025deft",),
        trained="a removed and an injected low-rank part of a matrix",
        about="removes a low-rank part of frozen matrices and trains another in its place.",
        aliases=r"\bdeft\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=1e-5,  # what is removed is added again
        learning_rates={**AS_LORA, "decoder": UNTUNED},
    )
    added_in = (0, 20)

    rank: Count = 8
    decomposition_method: Literal["relu", "qr"] = "relu"

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """What is injected starts as what is removed."""
        from peft import DeftConfig

        return DeftConfig(
            **self.common(model, context),
            r=self.rank,
            decomposition_method=self.decomposition_method,
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank * (inputs + outputs) for each linear layer in the targets."""
        return self.rank * sum(map(sum, architecture.linear_sizes(self.targets)))

    def misfit(self, architecture: Architecture) -> str | None:
        """PEFT would lower a rank above the outputs."""
        return self.too_large("rank", architecture, lambda size: size[1])
