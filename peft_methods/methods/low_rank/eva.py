"""EVA: LoRA that starts with the main directions of each layer's inputs (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Share

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class EVA(LoRA):
    """Every layer keeps the same rank (rho = 1), so the parameters are LoRA's.

    `batches` is the most batches of training rows that are passed for it, before training;
    `tau` is the similarity at which the directions count as found.
    """

    info = MethodInfo(
        name="eva",
        title="EVA",
        family="low_rank",
        order=17,
        paper="Paischer et al. 2024, arXiv:2410.07170",
        citations=("paischer2024eva",),
        trained="low-rank updates that start with the main directions of the inputs (rho = 1)",
        about=(
            "passes some rows through the model before training and starts LoRA's down-projections "
            "with the main directions of each layer's inputs."
        ),
        aliases=r"^eva\b|\beva[\s_-]?lora|lora.*\beva\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        strategies=("ddp",),  # each process passes the same rows through a whole model
        reads_rows=True,
        learning_rates={
            **AS_LORA,
            "decoder": DefaultRate(5e-4, "PEFT's example, examples/eva_finetuning"),
        },
    )

    tau: Share = 0.99
    batches: Count = 64

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Apply LoRA and pass training rows. Up-projections start at zero as usual.

        What is saved afterwards is plain LoRA, which is loaded without rows.
        """
        from peft import EvaConfig
        from peft.tuners.lora.eva import initialize_lora_eva_weights

        assert context.train_batches is not None, "a run gives its training rows"
        wrapped: Any = super().apply(model, context)
        config = wrapped.active_peft_config
        config.init_lora_weights = "eva"
        config.eva_config = EvaConfig(rho=1.0, tau=self.tau, use_label_mask=False)
        initialize_lora_eva_weights(
            wrapped,
            context.train_batches(self.batches),
            prepare_layer_inputs_fn=_inputs_of_tokens,
            gather_distributed_inputs=False,
            show_progress_bar=False,
        )
        config.init_lora_weights, config.eva_config = True, None
        return wrapped

    def misfit(self, architecture: Architecture) -> str | None:
        """There are as many directions as inputs."""
        return self.too_large("rank", architecture)


def _inputs_of_tokens(inputs: Any, mask: Tensor, _: str) -> Tensor:
    """Return a layer's inputs (tokens, width) without those of padding.

    All are returned where the layer reads no row of tokens: DeBERTa's read positions as well.
    """
    found: Tensor = inputs[0] if isinstance(inputs, tuple) else inputs
    return found[mask] if found.shape[:-1] == mask.shape else found.flatten(0, -2)
