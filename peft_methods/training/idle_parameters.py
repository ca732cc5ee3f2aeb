"""Parameters that an architecture leaves without gradient, found by a backward pass.

Longformer classifies by its first token, whose attention in the last layer uses the weights for
global attention alone: those for local attention have no gradient there. The pass is done on a new
model of the same config, without the method: whatever is wrong with a method or an engine cannot
excuse a weight that did not move.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

ROWS, LENGTH = 4, 32
SMALLEST = 1e-6  # of the largest gradient; in float64, gradients below it are rounding noise
# What PEFT adds to the names of a model's own modules and parameters.
ADDED = re.compile(r"^base_model\.model\.|\.base_layer(?=\.)|\.modules_to_save\.[^.]+(?=\.)")


def without_gradient(model: nn.Module, names: Iterable[str]) -> frozenset[str]:
    """Return those of the named parameters that have no gradient because of the architecture.

    A parameter that the method added has none if all parameters of the module that it changes have
    none. Empty for a model that cannot be built or run a second time.
    """
    with contextlib.suppress(Exception):  # any model's own code; the names are then reported
        twin = _twin(model)
        idle = _idle(twin)
        owners = {
            name: [f"{name}.{one}" if name else one for one, _ in module.named_parameters()]
            for name, module in twin.named_modules()
        }
        return frozenset(n for n in names if _is_idle(ADDED.sub("", n), idle, owners))
    return frozenset()


def _is_idle(name: str, idle: set[str], owners: dict[str, list[str]]) -> bool:
    """Whether the parameter, or else the smallest module of the plain model around it, is idle."""
    if name in owners[""]:
        return name in idle
    owner = name
    while owner and not owners.get(owner):
        owner = owner.rpartition(".")[0]
    return all(one in idle for one in owners[owner])


def _twin(model: nn.Module) -> nn.Module:
    """Return a new model of the same class and config, with other weights, in float64.

    Its matrices are drawn so that signals keep their size: with the usual small weights, attention
    is nearly uniform, and the gradients of queries and keys nearly zero.
    """
    peft_model: Any = model
    plain: Any = peft_model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        twin: nn.Module = type(plain)(plain.config).double().cpu().eval()
        for parameter in twin.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return twin.requires_grad_(True)


def _idle(twin: nn.Module) -> set[str]:
    """Return the parameters whose gradient is none or noise, for a few random rows."""
    config: Any = twin.config
    text = config.get_text_config()
    padding, end = (getattr(text, f"{name}_token_id", None) for name in ("pad", "eos"))
    length = min(LENGTH, getattr(text, "max_position_embeddings", 2 * LENGTH) // 2)
    generator = torch.Generator().manual_seed(0)
    first = (padding or 0) + 1
    first = first if first < text.vocab_size // 2 else 0  # decoders may pad with one of the last
    ids = torch.randint(first, text.vocab_size, (ROWS, length), generator=generator)
    other = next(one for one in range(3) if one not in {padding, end})
    ids[ids == padding] = other
    if config.is_encoder_decoder:  # classifies by the end-of-sequence token: one in every row
        ids[ids == end] = other
        ids[:, -1] = 0 if end is None else end
    logits = twin(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    weights = torch.randn(logits.shape, generator=generator, dtype=logits.dtype)
    (logits * weights).sum().backward()
    sizes = {
        name: 0.0 if p.grad is None else float(p.grad.abs().max())
        for name, p in twin.named_parameters()
    }
    return {name for name, size in sizes.items() if size <= SMALLEST * max(sizes.values())}
