"""BitFit: only bias vectors (and the head) are trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import (
    MEASURED,
    ApplyContext,
    DefaultRate,
    Method,
    MethodInfo,
    freeze_all_but,
)
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """All biases of the encoder, those of its norms included."""

    info = MethodInfo(
        name="bitfit",
        title="BitFit",
        family="selective",
        order=2,
        paper="Ben Zaken et al. 2022, arXiv:2106.10199",
        citations=("benzaken2022bitfit",),
        trained="bias vectors",
        about=(
            "trains the bias vectors of the model and the head, and leaves all weight matrices "
            "frozen."
        ),
        aliases=r"bit-?fit",
        color="#009e73",
        marker="^",
        needs="any model",
        learning_rates={
            "small_encoder": DefaultRate(2e-3, MEASURED),
            "encoder": DefaultRate(1e-3, "the upper end of the paper's range of 1e-4 to 1e-3"),
            "decoder": DefaultRate(1.6e-3, "Hu et al. 2022, arXiv:2106.09685, table 12, for GPT-3"),
        },
    )

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Train the head and every bias vector (MPNet's position bias is a table of weights)."""
        from peft_methods.models.module_names import is_bias

        freeze_all_but(model, context.head)
        for name, parameter in model.named_parameters():
            if is_bias(name, parameter):
                parameter.requires_grad = True
        return model

    def expected_trainable(self, architecture: Architecture) -> int | None:
        """Every bias outside the head."""
        return architecture.biases

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """A model without biases (Llama, ModernBERT, T5) has nothing to train but the head."""
        if architecture.biases == 0:
            return f"BitFit trains biases, and {architecture.model_type!r} has none"
        return super().unsupported(architecture, device)

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """With the pooler's bias or without it."""
        pooler = architecture.pooler * architecture.hidden
        return (architecture.encoder_biases, architecture.encoder_biases - pooler)
