"""LayerNorm tuning: the norms of all layers are trained (PEFT's)."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import PeftMethod, without_warnings
from peft_methods.methods.rates import AS_BITFIT, UNTUNED
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LNTuning(PeftMethod):
    """Weights and biases of the norms within layers, not of those before and after all layers."""

    info = MethodInfo(
        name="ln_tuning",
        title="LayerNorm tuning",
        family="selective",
        order=8,
        paper="Zhao et al. 2024, arXiv:2312.11420",
        citations=("zhao2024lntuning",),
        trained="norms of the layers",
        about="trains the weights and biases of the norms in all layers and freezes the rest.",
        aliases=r"\bln[\s_-]?tuning|layer[\s_-]?norm[\s_-](only|tuning)|norm[\s_-]only",
        saved_format="peft",
        mergeable=True,
        learning_rates={**AS_BITFIT, "decoder": UNTUNED},
    )

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Norms are found by their class, in the layers."""
        from peft import LNTuningConfig

        layer = re.compile(rf"(.*\.)?{context.architecture.parts.layers_pattern()}\.\d+\..+")
        return LNTuningConfig(
            task_type=context.task_type,
            target_modules=[
                name
                for name, module in model.named_modules()
                if type(module).__name__.endswith("Norm") and layer.fullmatch(name)
            ],
            modules_to_save=list(context.head),
        )

    def wrapping(self) -> AbstractContextManager[Any]:
        """PEFT warns that it does not know the class of a norm. It copies and calls it."""
        return without_warnings()

    def expected_trainable(self, architecture: Architecture) -> int | None:
        """The norms of one layer for each layer with weights of its own."""
        return architecture.norm_parameters
