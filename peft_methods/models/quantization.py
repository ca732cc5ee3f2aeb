"""Quantized weights by bitsandbytes or torchao: loading options, and values read back."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from peft_methods.models import ranks, torchao_weights
from peft_methods.models.config import Quantization
from peft_methods.models.model_head import ModelHead
from peft_methods.models.module_names import top_modules
from peft_methods.recipes.schema import ModelSpec


def quantization_options(
    kind: Quantization,
    config: Any,
    spec: ModelSpec,
    head: ModelHead,
    *,
    compute: torch.dtype,
    device: str,
    is_sharded: bool = False,
) -> dict[str, Any]:
    """Return the options that load the encoder's linear layers, and no others, in this format.

    "nf4" and "fp4" are 4-bit formats with double quantisation (QLoRA, Dettmers et al. 2023), "int8"
    is LLM.int8() (Dettmers et al. 2022), and "torchao_int8" has a scale for each row. transformers
    5 would also quantise the head and the pooler; LoRA's copies of them could then not be trained.
    FSDP divides tensors of floats alone, so a model that will be sharded stores the same bytes as
    such.
    """
    from transformers import BitsAndBytesConfig

    with torch.device("meta"):
        skeleton = head.auto_class().from_config(config, trust_remote_code=spec.trust_remote_code)
    kept = [*top_modules(skeleton), f"{skeleton.base_model_prefix}.pooler"]
    placed = {"device_map": {"": device}}
    if kind == "torchao_int8":
        return {"quantization_config": torchao_weights.options(kept), **placed}
    four_bits = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": compute,
        "bnb_4bit_quant_storage": torch.bfloat16 if is_sharded else torch.uint8,
    }
    options = {"load_in_8bit": True} if kind == "int8" else four_bits
    quantized = BitsAndBytesConfig(llm_int8_skip_modules=kept, **options)
    return {"quantization_config": quantized, **placed}


def quantization_of(model: nn.Module) -> dict[str, Any] | None:
    """Return the options that quantise a base model like this one's.

    They are those of `BitsAndBytesConfig`; if they have `quant_type`, of `TorchAoConfig`.
    """
    config: Any = getattr(model.config, "quantization_config", None)
    if config is None:
        return None
    if torchao_weights.is_from_torchao(quant_type := getattr(config, "quant_type", None)):
        kept = list(config.modules_to_not_convert)
        return {"quant_type": type(quant_type).__name__, "modules_to_not_convert": kept}
    skipped = list(config.llm_int8_skip_modules)
    if config.load_in_8bit:
        return {"load_in_8bit": True, "llm_int8_skip_modules": skipped}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": config.bnb_4bit_quant_type,
        "bnb_4bit_use_double_quant": config.bnb_4bit_use_double_quant,
        "bnb_4bit_compute_dtype": str(config.bnb_4bit_compute_dtype).removeprefix("torch."),
        "llm_int8_skip_modules": skipped,
    }


def protect_tensors(model: nn.Module) -> None:
    """Keep forward passes of quantized layers from changing their biases and inputs.

    bitsandbytes rounds biases: those of 4-bit layers once, to its compute dtype, which is done
    here; those of 8-bit layers to the dtype of each input. They are added after the product
    instead, as they are. On CPUs it also sets outliers in half-precision inputs of 8-bit layers to
    zero for a while, which autograd takes for a change: it gets a copy (0.50).
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    # It would say for every product that inputs are rounded to half precision: LLM.int8() does.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

    class Protected8bit(Linear8bitLt):
        """An 8-bit layer that leaves its bias and its inputs as they are."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Add the bias to the product of the weights."""
            bias = self._parameters["bias"]
            self._parameters["bias"] = None
            is_half_on_cpu = x.dtype == torch.float16 and x.device.type == "cpu"
            try:
                product: torch.Tensor = super().forward(x.clone() if is_half_on_cpu else x)
            finally:
                self._parameters["bias"] = bias
            return product if bias is None else product + bias.to(product.dtype)

    for module in model.modules():
        if type(module) is Linear8bitLt:
            module.__class__ = Protected8bit
        elif isinstance(module, Linear4bit) and module.bias is not None:
            module.bias.data = module.bias.data.to(module.compute_dtype)


def disable_repacking(model: nn.Module) -> None:
    """Prevent bitsandbytes from repacking the weights.

    On CPUs with AVX512-BF16 it repacks them in evaluation mode and never back, but frozen weights
    must not change.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # setattr, since the type of nn.Module hides plain attributes
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010


def forget_tables() -> None:
    """Drop the table of 8-bit values that bitsandbytes keeps on the device from its first use on.

    bitsandbytes 0.50.
    """
    functional: Any = sys.modules.get("bitsandbytes.functional")
    if functional is not None and hasattr(functional, "name2qmap"):
        functional.name2qmap.clear()


def flop_formulas() -> dict[Any, Callable[..., int]]:
    """Return the FLOPs of bitsandbytes' products, for torch's FlopCounterMode.

    Since version 0.50 the forward pass with 4-bit weights is an operation of its own, which torch
    does not know; with 8-bit weights it is one on a GPU. Earlier versions, and backward passes,
    dequantise the weights and multiply in torch.
    """
    formulas: dict[str, Callable[..., int]] = {
        "gemm_4bit": _gemm_4bit_flops,
        "int8_linear_matmul": _int8_flops,
        "int8_scaled_mm": _int8_flops,
        "int8_mixed_scaled_mm": _int8_mixed_flops,
    }
    known = torch.ops.bitsandbytes
    return {getattr(known, name): one for name, one in formulas.items() if hasattr(known, name)}


def _gemm_4bit_flops(inputs: Any, _: Any, shape: Any, *__: Any, **___: Any) -> int:
    """Return the FLOPs of multiplying `inputs` (…, columns) by weights of `shape` (rows, columns).

    FlopCounterMode replaces tensors by their shapes.
    """
    return 2 * math.prod(inputs) * int(shape[0])


def _int8_flops(inputs: Any, weights: Any, *_: Any, **__: Any) -> int:
    """Return the FLOPs of multiplying `inputs` (…, columns) by `weights` (rows, columns)."""
    return 2 * math.prod(inputs) * int(weights[0])


def _int8_mixed_flops(inputs: Any, _: Any, weights: Any, *__: Any, **___: Any) -> int:
    """Return the same for an operation that also gets the inputs in 8 bits."""
    return _int8_flops(inputs, weights)


def is_4bit(parameter: Any) -> bool:
    """Whether bitsandbytes stores this parameter in 4 bits."""
    return getattr(parameter, "quant_state", None) is not None


def is_quantized(parameter: Any) -> bool:
    """Whether bitsandbytes or torchao stores this parameter in 4 or 8 bits."""
    return (
        is_4bit(parameter)
        or parameter.dtype == torch.int8
        or torchao_weights.is_from_torchao(parameter)
    )


def values_of(parameter: nn.Parameter) -> torch.Tensor:
    """Return the parameter's values, dequantised if it is stored in 4 bits or by torchao.

    Those of bitsandbytes in 8 bits are integers. Their scales belong to the layer after its first
    forward pass.
    """
    values = ranks.whole(parameter.detach())
    if torchao_weights.is_from_torchao(values):
        return values.dequantize()
    if not is_4bit(parameter):
        return values
    import bitsandbytes.functional as bnb

    state: Any = parameter.quant_state  # type: ignore[attr-defined]
    return bnb.dequantize_4bit(values, state)
