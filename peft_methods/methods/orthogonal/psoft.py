"""PSOFT: the main singular subspace of frozen matrices is rotated (PEFT's)."""

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

SUBSPACES = ("_psoft_A_cache", "_psoft_B_cache")  # PEFT's names of the singular vectors


@dataclass(frozen=True, kw_only=True)
class PSOFT(TargetedPeftMethod):
    """A rotation of the first `rank` singular directions, with a scale before and after it.

    PEFT computes the singular vectors again when it loads a model, and their signs depend on the
    device and its libraries. Here they are frozen parameters, which are saved too.
    """

    info = MethodInfo(
        name="psoft",
        title="PSOFT",
        family="orthogonal",
        order=3,
        paper="Wu et al. 2026, arXiv:2505.11235",
        citations=("wu2026psoft",),
        trained="a rotation of the main singular directions of chosen matrices",
        about=(
            "rotates and scales the first singular directions of frozen matrices, which are kept "
            "beside them."
        ),
        aliases=r"\bpsoft\b",
        saved_format="peft_methods",
        needs="linear layers",
        mergeable=True,
        strategies=("ddp",),  # the singular vectors would have to be computed before sharding
        learning_rates={**AS_LORA, "decoder": UNTUNED},
    )
    added_in = (0, 19)
    takes_transposed = False
    not_converted = ""

    rank: Count = 32

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The rotation starts as the identity, the scales at one."""
        from peft import PsoftConfig

        return PsoftConfig(**self.common(model, context), r=self.rank, psoft_alpha=self.rank)

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Wrap the model, and make parameters of the singular vectors.

        They are copied: on a GPU PEFT's are rows of a matrix of all vectors, which stays in memory.
        """
        from peft.tuners.psoft.layer import PsoftLayer
        from torch import nn

        wrapped = super().apply(model, context)
        for layer in wrapped.modules():
            for name in SUBSPACES if isinstance(layer, PsoftLayer) else ():
                vectors = {
                    adapter: nn.Parameter(one.clone(), requires_grad=False)
                    for adapter, one in getattr(layer, name).items()
                }
                setattr(layer, name, nn.ParameterDict(vectors))
        return wrapped

    def saved_parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The trained parameters and the singular vectors."""
        return {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad or any(one in name for one in SUBSPACES)
        }

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank * (rank - 1) / 2 + 2 * rank for each linear layer in the targets."""
        own = self.rank * (self.rank - 1) // 2 + 2 * self.rank
        return own * len(architecture.linear_sizes(self.targets))

    def misfit(self, architecture: Architecture) -> str | None:
        """A matrix has as many singular directions as its shorter side is long."""
        return self.too_large("rank", architecture)

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """A rank that fits the matrices of a tiny model."""
        return {"rank": 8}
