"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import MEASURED, ApplyContext, DefaultRate, Method, MethodInfo
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """The usual way, and the reference that the costs of the others are measured against."""

    info = MethodInfo(
        name="full",
        title="Full fine-tuning",
        family="selective",
        order=0,
        scope="all",
        paper="Devlin et al. 2019, arXiv:1810.04805",
        citations=("devlin2019bert",),
        trained="every weight",
        about=(
            "trains every weight of the model, in fp32 (master weights) in mixed precision too, "
            "without stochastic rounding. It is the usual way, "
            "and what the costs of the others are measured against."
        ),
        generic_aliases=r"full[\s_-]*fine[\s_-]*tun\w*|\bfull|\bfft\b|^\W*fine[\s_-]*tun\w*\W*$",
        color="#5b5b5b",
        marker="s",
        needs="any model",
        cost_in_forward_passes=3.0,
        learning_rates={
            "small_encoder": DefaultRate(1e-4, MEASURED),
            "encoder": DefaultRate(2e-5, "in the grid of Devlin et al. 2019 (5e-5, 3e-5, 2e-5)"),
            "decoder": DefaultRate(2e-5, "Touvron et al. 2023, arXiv:2307.09288, section 3.1"),
        },
    )

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Make every parameter trainable."""
        return model.requires_grad_(True)

    def expected_trainable(self, architecture: Architecture) -> int | None:
        """Everything but the head."""
        return architecture.parameters

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """The encoder with or without a pooler, whatever the head is."""
        pooler = architecture.hidden**2 + architecture.hidden
        other = -pooler if architecture.pooler else pooler
        return (architecture.encoder_parameters, architecture.encoder_parameters + other)
