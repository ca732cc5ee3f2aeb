"""Frozen weights in the autocast precision: cast once, not at every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from peft_methods.training.precision import HALF


@contextmanager
def frozen_cast(model: nn.Module, precision: str) -> Iterator[list[nn.Parameter]]:
    """Context manager: store frozen linear weights in the autocast dtype and yield the copies.

    Without it, autocast casts frozen weights and biases at every step. A captured step reads the
    copies at their addresses, so keep them for as long as the step is replayed. The model's own
    parameters are unchanged and are restored on exit. Subclasses of `nn.Linear` (4-bit layers)
    cast their weights themselves and are left alone.
    """
    linear = [
        module for module in model.modules() if type(module) is nn.Linear and precision in HALF
    ]
    frozen = [
        (module, name, p)
        for module in linear
        for name, p in module.named_parameters(recurse=False)
        if not p.requires_grad
    ]
    cast = [
        nn.Parameter(parameter.detach().to(HALF[precision]), requires_grad=False)
        for _, _, parameter in frozen
    ]
    for (module, name, _), parameter in zip(frozen, cast, strict=True):
        setattr(module, name, parameter)
    try:
        yield cast
    finally:
        for module, name, parameter in frozen:
            setattr(module, name, parameter)
