"""FRoD: weights decomposed over a shared basis, with trained scales and rotations (PEFT's)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo, ParamGroup
from peft_methods.methods.peft_method import TargetedPeftMethod, drawn_seed, with_sparse_tensors
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Dropout, Positive, Share

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

SPARSE = ".frod_lambda_s_values."  # part of the names of the rotations


@dataclass(frozen=True, kw_only=True)
class FRoD(TargetedPeftMethod):
    """`sparse_rate` is the share of rotations that are trained; their places are drawn.

    `learning_rate` is that of the scales; the rotations learn at a part of it.
    """

    info = MethodInfo(
        name="frod",
        title="FRoD",
        family="low_rank",
        order=23,
        paper="Wan et al. 2025, arXiv:2512.23485",
        citations=("wan2025frod",),
        trained="scales and a few rotations in a basis shared by all layers",
        about=(
            "decomposes the weights of all layers over one shared basis and learns the scales in "
            "it and a sparse set of rotations, which give updates of full rank."
        ),
        aliases=r"\bfrod\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=1e-4,  # the weights are multiplied together from their decomposition
        strategies=("ddp",),  # layers refer to the same basis
        cost_in_forward_passes=4.0,  # full-rank products in place of the weights'
        learning_rates={
            "encoder": DefaultRate(2e-2, "PEFT's example, for BERT-base on SST-2", head=1e-2),
            "decoder": compared(1e-3),
        },
    )
    added_in = (0, 20)

    sparse_rate: Share = 0.01
    regularization_alpha: Positive = 1e-3
    dropout: Dropout = 0.0
    rotations_rate_ratio: Positive = 0.1

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The scales start at those of the weights, the rotations at zero."""
        from peft import FrodConfig

        return FrodConfig(
            **self.common(model, context),
            sparse_rate=self.sparse_rate,
            regularization_alpha=self.regularization_alpha,
            frod_dropout=self.dropout,
            projection_prng_key=drawn_seed(),
            progressbar=False,
        )

    def wrapping(self) -> AbstractContextManager[Any]:
        """The rotations are a sparse matrix, with which PEFT multiplies in every step."""
        return with_sparse_tensors()

    def param_groups(self, model: nn.Module, head: Sequence[str]) -> Sequence[ParamGroup]:
        """Return the head's group, and one of the rotations with their own rate."""
        rotations = [p for name, p in model.named_parameters() if SPARSE in name]
        own = ParamGroup(rotations, self.learning_rate * self.rotations_rate_ratio)
        return (*super().param_groups(model, head), own)

    def expected_trainable(self, architecture: Architecture) -> int:
        """For each linear layer, its inputs and the share of the pairs of them, at least one."""
        return sum(
            inputs + self._rotations(inputs)
            for inputs, _ in architecture.linear_sizes(self.targets)
        )

    def _rotations(self, inputs: int) -> int:
        pairs = inputs * (inputs - 1)
        wanted = min(int(inputs * inputs * self.sparse_rate), pairs)
        return max(1, wanted) if self.sparse_rate and pairs else wanted
