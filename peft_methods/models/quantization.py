"""4-bit weights by bitsandbytes: loading options, and values read back."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from peft_methods.models import ranks
from peft_methods.models.model_head import ModelHead
from peft_methods.models.module_names import top_modules
from peft_methods.recipes.schema import ModelSpec


def nf4_options(
    config: Any,
    spec: ModelSpec,
    head: ModelHead,
    compute: torch.dtype,
    device: str,
    *,
    is_sharded: bool = False,
) -> dict[str, Any]:
    """Return the options for 4-bit NormalFloat with double quantisation, for the encoder alone.

    QLoRA, Dettmers et al. 2023. transformers 5 would also quantise the head and the pooler; LoRA's
    copies of them could then not be trained. FSDP divides tensors of floats alone, so a model that
    will be sharded stores the same bytes as such.
    """
    from transformers import BitsAndBytesConfig

    with torch.device("meta"):
        skeleton = head.auto_class().from_config(config, trust_remote_code=spec.trust_remote_code)
    kept = [*top_modules(skeleton), f"{skeleton.base_model_prefix}.pooler"]
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=kept,
        bnb_4bit_quant_storage=torch.bfloat16 if is_sharded else torch.uint8,
    )
    return {"quantization_config": quantized, "device_map": {"": device}}


def quantization_of(model: nn.Module) -> dict[str, Any] | None:
    """Return the options of `BitsAndBytesConfig` that quantise a base model like this one's."""
    config: Any = getattr(model.config, "quantization_config", None)
    if config is None:
        return None
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": config.bnb_4bit_quant_type,
        "bnb_4bit_use_double_quant": config.bnb_4bit_use_double_quant,
        "bnb_4bit_compute_dtype": str(config.bnb_4bit_compute_dtype).removeprefix("torch."),
        "llm_int8_skip_modules": list(config.llm_int8_skip_modules),
    }


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
    """Return the FLOPs of bitsandbytes' products with 4-bit weights, for torch's FlopCounterMode.

    Since version 0.50 the forward pass is an operation of its own, which torch does not know.
    Earlier versions, and the backward pass, dequantise the weights and multiply in torch.
    """
    with contextlib.suppress(AttributeError):
        return {torch.ops.bitsandbytes.gemm_4bit: _gemm_4bit_flops}
    return {}


def _gemm_4bit_flops(inputs: Any, _: Any, shape: Any, *__: Any, **___: Any) -> int:
    """Return the FLOPs of multiplying `inputs` (…, columns) by weights of `shape` (rows, columns).

    FlopCounterMode replaces tensors by their shapes.
    """
    return 2 * math.prod(inputs) * int(shape[0])


def is_4bit(parameter: Any) -> bool:
    """Whether bitsandbytes stores this parameter in 4 bits."""
    return getattr(parameter, "quant_state", None) is not None


def values_of(parameter: nn.Parameter) -> torch.Tensor:
    """Return the parameter's values, dequantised if it is stored in 4 bits."""
    values = ranks.whole(parameter.detach())
    if not is_4bit(parameter):
        return values
    import bitsandbytes.functional as bnb

    state: Any = parameter.quant_state  # type: ignore[attr-defined]
    return bnb.dequantize_4bit(values, state)
