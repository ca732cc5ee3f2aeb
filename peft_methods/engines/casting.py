"""Frozen weights in the precision that they are used in: cast once, not at every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from peft_methods.engines.base import HALF


@contextmanager
def frozen_cast(model: nn.Module, precision: str) -> Iterator[list[nn.Parameter]]:
    """Within it, linear layers have their frozen weights and biases as autocast makes them at each use; yields these.

    What was captured within reads them where they are: they are to be kept for as long as it is replayed. The model's own
    stand aside meanwhile, untouched. Classes derived from `nn.Linear` (4-bit ones) see to their weights themselves.
    """
    linear = [
        module for module in model.modules() if type(module) is nn.Linear and precision in HALF
    ]
    own = [
        (module, name, p)
        for module in linear
        for name, p in module.named_parameters(recurse=False)
        if not p.requires_grad
    ]
    cast = [
        nn.Parameter(parameter.detach().to(HALF[precision]), requires_grad=False)
        for _, _, parameter in own
    ]
    for (module, name, _), parameter in zip(own, cast, strict=True):
        setattr(module, name, parameter)
    try:
        yield cast
    finally:
        for module, name, parameter in own:
            setattr(module, name, parameter)
