"""LoftQ: QLoRA whose low-rank updates start with what rounding took from the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.low_rank.qlora import QLoRA
from peft_methods.methods.rates import AS_QLORA
from peft_methods.models.architecture import Architecture
from peft_methods.models.module_names import has_transposed_weights

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LoftQ(QLoRA):
    """The paper's first step: the weights are rounded once, then the rest is decomposed.

    PEFT's own `replace_lora_weights_loftq` needs a GPU and leaves LoRA's scale out (0.21).
    """

    info = MethodInfo(
        name="loftq",
        title="LoftQ",
        family="low_rank",
        order=6,
        paper="Li et al. 2024, arXiv:2310.08659",
        citations=("li2024loftq",),
        trained="low-rank updates that start with the errors of a 4-bit base (one iteration)",
        about=(
            "starts LoRA's updates over 4-bit weights with the best low-rank approximation of the "
            "rounding errors, so that the model begins closer to the unrounded one."
        ),
        aliases=r"\bloftq\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=False,  # rounding the sum to 4 bits would give a different model
        start_tolerance=1.0,
        strategies=("ddp",),  # it decomposes whole weights
        quantization="nf4",
        unquantized_counterpart="lora",
        learning_rates={
            **AS_QLORA,
            "decoder": DefaultRate(1e-4, "PEFT's example, examples/loftq_finetuning, for GSM8K"),
        },
    )

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Apply QLoRA, and replace its first factors by those of the rounding errors."""
        import torch

        from peft_methods.models.quantization import values_of

        assert context.unquantized is not None, "a run gives its base model"
        plain = context.unquantized()
        exact, is_transposed = dict(plain.named_parameters()), has_transposed_weights(plain)
        wrapped: Any = super().apply(model, context)
        for name, layer in wrapped.get_base_model().named_modules():
            if not hasattr(layer, "lora_A"):
                continue
            (adapter,) = layer.active_adapters
            rounded = values_of(layer.get_base_layer().weight).float()
            weight = exact[f"{name}.weight"].detach().to(rounded)
            error = (weight.T if is_transposed else weight) - rounded
            left, values, right = torch.linalg.svd(error, full_matrices=False)
            root = (values[: self.rank] / layer.scaling[adapter]).sqrt()
            layer.lora_A[adapter].weight.data = root[:, None] * right[: self.rank]
            layer.lora_B[adapter].weight.data = left[:, : self.rank] * root
        return wrapped

    def misfit(self, architecture: Architecture) -> str | None:
        """There are as many directions as rows or columns."""
        return self.too_large("rank", architecture)
