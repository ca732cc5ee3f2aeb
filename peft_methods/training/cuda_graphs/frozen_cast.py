"""Frozen weights in the autocast precision: cast once, not at every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from peft_methods.models.quantization import is_quantized
from peft_methods.training.precision import HALF

Places = list[tuple[nn.Module, str, nn.Parameter]]  # a module, the name of a parameter, and this
ROWS_COMPARED = 4096


@contextmanager
def frozen_cast(
    model: nn.Module, precision: str, *, on: bool = True, reads_weights: bool = False
) -> Iterator[list[nn.Parameter]]:
    """Context manager: store frozen linear weights in the autocast dtype and yield the copies.

    Without it, autocast casts frozen weights and biases at every step. A captured step reads the
    copies at their addresses, so keep them for as long as the step is replayed. The model's own
    parameters are unchanged and are restored on exit. Subclasses of `nn.Linear` (4-bit layers) cast
    their weights themselves and are left alone, as are weights that torchao stores. With
    `reads_weights`, so are the layers that a method wraps: see `MethodInfo`.
    """
    frozen = _frozen_in_linear(model, reads_weights) if on and precision in HALF else []
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


@contextmanager
def half_frozen(model: nn.Module, precision: str, *, reads_weights: bool = False) -> Iterator[None]:
    """Context manager: hold frozen linear weights and embeddings in the autocast dtype alone.

    The originals are back on exit. Meanwhile those that 16 bits cannot represent wait in the host's
    memory; published weights mostly can. Embeddings that 16 bits cannot represent stay as they are,
    and so do linear weights shared with them. Products and embeddings have the same bits, also
    those of evaluations. If a copy has changed, the original gets its values, so that later checks
    of frozen weights find the change. `reads_weights`: as for `frozen_cast`.
    """
    if precision not in HALF:
        yield
        return
    half = HALF[precision]
    embeddings = _frozen_embeddings(model, half)
    frozen = [*_frozen_in_linear(model, reads_weights), *embeddings]
    kept = _read_elsewhere(model, frozen)
    dtypes = {id(parameter): parameter.dtype for _, _, parameter in frozen}
    copies: dict[int, nn.Parameter] = {}
    hooks = []
    try:
        for module, name, parameter in frozen:
            if id(parameter) not in copies:
                copy = nn.Parameter(parameter.detach().to(half), requires_grad=False)
                if id(parameter) not in kept:
                    is_exact = _is_exact(parameter, half)
                    parameter.data = copy.data if is_exact else parameter.data.to("cpu")
                copies[id(parameter)] = copy
            setattr(module, name, copies[id(parameter)])
        for module, _, parameter in embeddings:
            in_its_type = partial(_in_dtype, dtypes[id(parameter)])
            hooks.append(module.register_forward_hook(in_its_type))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, name, parameter in frozen:
            held = copies.pop(id(parameter), None)  # freed before the next: both need memory
            if held is not None:
                waiting = parameter.data.to(held.device)
                is_unchanged = torch.equal(waiting.to(held.dtype), held)
                parameter.data = (waiting if is_unchanged else held.data).to(dtypes[id(parameter)])
            setattr(module, name, parameter)


def _in_dtype(dtype: torch.dtype, _: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
    return output.to(dtype)


def _is_exact(parameter: nn.Parameter, half: torch.dtype) -> bool:
    """Whether 16 bits represent all values. They are compared in parts, to need little memory."""
    parts = torch.split(parameter.detach(), ROWS_COMPARED)
    return all(torch.equal(part.to(half).to(part.dtype), part) for part in parts)


def _frozen_embeddings(model: nn.Module, half: torch.dtype) -> Places:
    """Return the frozen embeddings whose values 16 bits represent."""
    return [
        (module, name, parameter)
        for module in model.modules()
        if type(module) is nn.Embedding and module.max_norm is None
        for name, parameter in module.named_parameters(recurse=False)
        if not parameter.requires_grad and _is_exact(parameter, half)
    ]


def _read_elsewhere(model: nn.Module, places: Places) -> set[int]:
    """Return the ids of the parameters that are read at other places than these, too."""
    known = {(id(module), name) for module, name, _ in places}
    return {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if (id(module), name) not in known
    }


def _frozen_in_linear(model: nn.Module, reads_weights: bool) -> Places:
    """Return the frozen parameters of plain linear layers.

    With `reads_weights`, those of the layers that PEFT wraps are left out.
    """
    return [
        (module, name, parameter)
        for path, module in model.named_modules()
        if type(module) is nn.Linear and not (reads_weights and path.endswith(".base_layer"))
        for name, parameter in module.named_parameters(recurse=False)
        if not parameter.requires_grad and not is_quantized(parameter)
    ]
