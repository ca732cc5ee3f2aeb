"""QLoRA: LoRA over an encoder held in 4-bit NormalFloat with double quantisation (bitsandbytes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import MEASURED, ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.bitsandbytes_library import library_problem
from peft_methods.methods.low_rank.lora import VARIANTS, LoRA
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class QLoRA(LoRA):
    """The base is loaded in 4 bits; the trained parameters are LoRA's."""

    info = MethodInfo(
        name="qlora",
        title="QLoRA",
        family="low_rank",
        order=1,
        paper="Dettmers et al. 2023, arXiv:2305.14314",
        citations=("dettmers2023qlora",),
        trained=(
            "low-rank updates over a 4-bit NormalFloat base with double quantisation "
            "(bitsandbytes; on CPU too)"
        ),
        about=(
            "trains the same low-rank updates over a model whose frozen weights are held in a "
            "4-bit number format, trading arithmetic for memory."
        ),
        aliases=r"q-?lora|lora.*(4-?bit|nf4)|(4-?bit|nf4).*lora",
        not_aliases=VARIANTS,
        color="#56b4e9",
        marker="D",
        saved_format="peft",
        needs="linear layers",
        mergeable=False,  # rounding the sum to 4 bits would give a different model
        start_tolerance=1.0,
        quantization="nf4",
        unquantized_counterpart="lora",
        learning_rates={
            "small_encoder": DefaultRate(2e-3, MEASURED),
            "encoder": DefaultRate(5e-4, "measured on MPNet-base and IMDb, recipe imdb_mpnet"),
            "decoder": DefaultRate(2e-4, "the paper's, table 9, for 7B and 13B parameters"),
        },
    )
    not_converted = "PEFT converts no layers whose weights are quantised"

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Prepare the model as PEFT does (norms and head in fp32), then apply LoRA.

        bitsandbytes rounds biases in forward passes, which would change frozen weights. That is
        settled before the checks take their first digest.
        """
        from peft import prepare_model_for_kbit_training

        from peft_methods.models.quantization import protect_tensors

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        protect_tensors(model)
        return super().apply(model, context)

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As LoRA; bitsandbytes must be installed, with its CUDA library where there are GPUs."""
        problem = library_problem(self.title, device)
        return problem or super().unsupported(architecture, device)
