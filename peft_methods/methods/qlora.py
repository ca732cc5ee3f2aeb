"""QLoRA: LoRA over an encoder held in 4-bit NormalFloat with double quantisation (bitsandbytes)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.layouts import ModelShape
from peft_methods.methods.base import Task
from peft_methods.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class QLoRA(LoRA):
    """The base is loaded in 4 bits; what is trained is LoRA's."""

    name = "qlora"
    title = "QLoRA"
    paper = "Dettmers et al. 2023, arXiv:2305.14314"
    start_tolerance = 1.0
    quantization = "nf4"

    def inject(self, model: nn.Module, task: Task) -> nn.Module:
        """PEFT's preparation (norms and head in fp32), then LoRA.

        bitsandbytes would round the biases of 4-bit maps to its compute dtype in the first forward pass, after which
        frozen weights are not what they were; so that is done here, before anything is compared with anything.
        """
        from bitsandbytes.nn import Linear4bit
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        for module in model.modules():
            if isinstance(module, Linear4bit) and module.bias is not None:
                module.bias.data = module.bias.data.to(module.compute_dtype)
        return super().inject(model, task)

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Not done: the sum would be rounded to 4 bits anew, which is another model."""
        return None

    def supports(self, shape: ModelShape, device: str) -> str | None:
        """As LoRA, with bitsandbytes installed, and on a GPU with its CUDA library."""
        if importlib.util.find_spec("bitsandbytes") is None:
            return "QLoRA needs bitsandbytes: pip install bitsandbytes"
        if device.startswith("cuda") and not _has_cuda_kernels():
            return "bitsandbytes came without a CUDA library for this torch: `python -m bitsandbytes` says which one it looks for"
        return super().supports(shape, device)


def _has_cuda_kernels() -> bool:
    from bitsandbytes.cextension import lib

    return bool(getattr(lib, "compiled_with_cuda", False))
