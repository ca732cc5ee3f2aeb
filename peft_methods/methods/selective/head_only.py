"""Head only: the classifier on a frozen encoder. The floor that every other method must beat."""

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
class HeadOnly(Method):
    """The head is trained on outputs of the encoder, which has its dropout."""

    info = MethodInfo(
        name="head_only",
        title="Head only",
        family="selective",
        order=1,
        scope="head",
        paper="Alain & Bengio 2016, arXiv:1610.01644",
        citations=("alain2016probes",),
        trained="the new head on a frozen model: the floor",
        about=(
            "leaves the model as it was pretrained and trains its new head alone. It "
            "shows what the frozen features give, a floor under the other methods."
        ),
        generic_aliases=r"head[\s_-]*only|frozen",
        color="#f0e442",
        marker="v",
        needs="any model",
        cost_in_forward_passes=1.0,
        learning_rates={
            "small_encoder": DefaultRate(5e-3, MEASURED),
            "encoder": DefaultRate(1e-3, "Adam's default (Kingma & Ba 2015, arXiv:1412.6980)"),
            "decoder": DefaultRate(1e-3, "Adam's default (Kingma & Ba 2015, arXiv:1412.6980)"),
        },
    )

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Freeze the encoder."""
        freeze_all_but(model, context.head)
        return model

    def expected_trainable(self, architecture: Architecture) -> int:
        """Nothing besides the head."""
        return 0

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """A language model's head is pretrained: there is nothing new to train."""
        if architecture.head_parameters == 0:
            return (
                f"{self.title} trains a new head, and this task's is a part of the pretrained model"
            )
        return super().unsupported(architecture, device)

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """Nothing besides the head."""
        return (0,)
