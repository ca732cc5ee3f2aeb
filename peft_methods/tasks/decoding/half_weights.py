"""Linear maps with weights in the autocast precision: cast once, not for every token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARE = 0.5  # of the free memory that the copies may take


@contextmanager
def half_weights(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Context manager: plain linear maps compute with copies of their weights, if these fit.

    Autocast casts the weights at every call, to the same values. The parameters stay as they are,
    since methods may read them beside calling the map (DoRA takes their norms). Subclasses of
    `nn.Linear` (4-bit layers) are left alone. On a CPU and without autocast nothing is changed.
    """
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    is_on = device.type == "cuda" and torch.is_autocast_enabled(device.type)
    if not is_on or not _fit(linear, device):
        yield
        return
    dtype = torch.get_autocast_dtype(device.type)
    for module in linear:
        module.forward = _map_in(module, dtype)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for module in linear:
            del module.forward


def _map_in(module: nn.Linear, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight = module.weight.detach().to(dtype)
    bias = None if module.bias is None else module.bias.detach().to(dtype)
    return partial(F.linear, weight=weight, bias=bias)


def _fit(linear: list[nn.Linear], device: torch.device) -> bool:
    needed = 2 * sum(module.weight.numel() for module in linear)
    return needed <= SHARE * torch.cuda.mem_get_info(device)[0]
