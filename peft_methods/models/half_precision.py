"""Attention in half precision over projections that return fp32."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

MASKED_AS_QUERIES = ("deberta", "deberta-v2")  # model types


def with_masks_of_scores(model: nn.Module) -> nn.Module:
    """Let DeBERTa's attention mask its scores in their own format. Return the same model.

    transformers 5.17 masks them with the lowest number of the queries' format. Autocast computes
    scores in half precision, in which that of fp32 overflows: a `RuntimeError`. Queries are in fp32
    where a layer returns it, as bitsandbytes' 4-bit layers do and those of half of PEFT's methods,
    or where DeBERTa (v1) adds its bias. Projections are cast here as the products would cast them.
    """
    config: Any = model.config
    if config.model_type in MASKED_AS_QUERIES:
        for module in model.modules():
            if hasattr(module, "transpose_for_scores"):
                vars(module)["transpose_for_scores"] = MethodType(_transposed, module)
    return model


def _transposed(attention: Any, projected: torch.Tensor, *more: Any) -> torch.Tensor:
    device = projected.device.type
    if torch.is_autocast_enabled(device):
        projected = projected.to(torch.get_autocast_dtype(device))
    transposed: torch.Tensor = type(attention).transpose_for_scores(attention, projected, *more)
    return transposed
