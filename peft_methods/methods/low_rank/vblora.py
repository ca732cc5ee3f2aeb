"""VB-LoRA: low-rank updates composed of vectors from one bank for all layers (PEFT's)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo, ParamGroup
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class VBLoRA(TargetedPeftMethod):
    """`learning_rate` is the bank's; the logits, which choose vectors, learn at a multiple of it.

    The default vector length divides the sizes of all usual models; PEFT's, 256, does not.
    """

    info = MethodInfo(
        name="vblora",
        title="VB-LoRA",
        family="low_rank",
        order=40,
        paper="Li et al. 2024, arXiv:2405.15179",
        citations=("li2024vblora",),
        trained="a bank of vectors, and which of them make up each low-rank update",
        about=(
            "composes the low-rank updates of all layers from one shared bank of short vectors; "
            "each part is a learned mixture of a few of them."
        ),
        aliases=r"vb[\s_-]?lora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        # The bank is drawn from ±0.02 and the mixtures differ: the first update is small, not zero.
        start_tolerance=2e-2,
        strategies=("ddp",),  # all layers share the bank
        learning_rates={
            "encoder": DefaultRate(1e-3, "PEFT's example, for RoBERTa-large on MRPC", head=4e-3),
            "decoder": compared(5e-4),
        },
    )
    not_converted = ""

    rank: Count = 4
    num_vectors: Count = 256
    vector_length: Count = 64
    topk: Count = 2
    dropout: Dropout = 0.0
    logits_rate_ratio: Positive = 10.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Bank and logits start at small random values."""
        from peft import VBLoRAConfig

        return VBLoRAConfig(
            **self.common(model, context),
            r=self.rank,
            num_vectors=self.num_vectors,
            vector_length=self.vector_length,
            topk=self.topk,
            vblora_dropout=self.dropout,
        )

    def param_groups(self, model: nn.Module, head: Sequence[str]) -> Sequence[ParamGroup]:
        """Return the head's group, and one of the logits with their own rate."""
        logits = [p for name, p in model.named_parameters() if ".vblora_logits_" in name]
        own = ParamGroup(logits, self.learning_rate * self.logits_rate_ratio)
        return (*super().param_groups(model, head), own)

    def expected_trainable(self, architecture: Architecture) -> int:
        """The bank, and for each vector of the low-rank matrices one logit a vector of the bank."""
        length, sides = self.vector_length, sum(map(sum, architecture.linear_sizes(self.targets)))
        return self.num_vectors * (length + self.rank * sides // length)

    def misfit(self, architecture: Architecture) -> str | None:
        """Rows and columns are divided into vectors, which are in the bank."""
        if self.topk > self.num_vectors:
            return (
                f"{self.title}: methods.{self.name}.topk = {self.topk}, but the bank has "
                f"{self.num_vectors} vectors: set it to {self.num_vectors} or less"
            )
        return self.does_not_divide("vector_length", architecture) or self.too_large(
            "rank", architecture, every=True
        )

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Vectors that are short enough for a tiny model."""
        return {"vector_length": 8, "num_vectors": 32}
