"""AdaMSS: small updates in clusters of a weight matrix's main subspace (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, drawn_seed
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class AdaMSS(TargetedPeftMethod):
    """Each cluster of rows has an update of rank one. Clusters are not pruned during training.

    PEFT finds the clusters again when it loads a saved model, from the same base weights.
    """

    info = MethodInfo(
        name="adamss",
        title="AdaMSS",
        family="low_rank",
        order=38,
        paper="Zheng et al. 2025, OpenReview:8ZdWmpYxT0",
        citations=("zheng2025adamss",),
        trained="an update of rank one for each cluster of rows; clusters are not pruned",
        about=(
            "clusters the rows of each weight matrix by their main directions and trains a small "
            "update within each cluster."
        ),
        aliases=r"\badamss\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        strategies=("ddp",),  # its clusters are of whole weights
        learning_rates={
            "encoder": DefaultRate(
                1e-3, "PEFT's example, from the paper's table 19, RoBERTa-base on SST-2", head=5e-3
            ),
            "decoder": compared(1e-4),
        },
    )
    added_in = (0, 19)
    takes_transposed = False

    rank: Count = 100
    num_subspaces: Count = 5

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """One factor starts at zero, so the outputs are unchanged at first."""
        from peft import AdamssConfig

        return AdamssConfig(
            **self.common(model, context),
            r=self.rank,
            num_subspaces=self.num_subspaces,
            subspace_rank=1,
            random_seed=drawn_seed(),
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """num_subspaces * rank + outputs for each linear layer in the targets."""
        sizes = architecture.linear_sizes(self.targets)
        return sum(self.num_subspaces * self.rank + outputs for _, outputs in sizes)

    def misfit(self, architecture: Architecture) -> str | None:
        """Directions and clusters are at most as many as rows or columns."""
        return self.too_large("rank", architecture) or self.too_large("num_subspaces", architecture)

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """A rank that a tiny model has."""
        return {"rank": 8}
