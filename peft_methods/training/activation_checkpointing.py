"""Activation checkpointing: recompute a layer's activations in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the model's layers: the outermost list of modules of a single class."""
    lists = (list(module) for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((layers for layers in lists if len({type(layer) for layer in layers}) == 1), [])


@contextmanager
def checkpointing(model: nn.Module, *, on: bool) -> Iterator[None]:
    """Context manager: each layer stores only its input and is recomputed in the backward pass.

    Compiled layers also store the output of their attention. transformers' implementation is not
    used, since not every encoder has one (MPNet in transformers 5.17). Checkpoints are not
    reentrant: so a layer's trained parameters get gradients even if its input requires none, as
    with frozen embeddings.
    """
    layers = layers_of(model) if on else []
    for layer in layers:
        layer.forward = MethodType(checkpointed_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # uncovers the class's method


def checkpointed_forward(layer: nn.Module, *inputs: Any, **options: Any) -> Any:
    """Run the layer's forward pass. In training its activations are recomputed, not stored."""
    forward: Callable[..., Any] = MethodType(type(layer).forward, layer)
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*inputs, **options)
    if torch.compiler.is_compiling():
        return checkpoint(
            forward,
            *inputs,
            use_reentrant=False,
            context_fn=recompute_all_but_attention,
            **options,
        )
    return checkpoint(forward, *inputs, use_reentrant=False, **options)


def recompute_all_but_attention() -> Any:
    """Return checkpoint contexts for compiled code that store the outputs of attention kernels.

    An attention kernel draws its dropout internally and would draw different values if it were
    recomputed. The compiler can avoid that by storing the state of a random generator, but a
    captured step does not advance that generator.
    """
    return create_selective_checkpoint_contexts(_checkpoint_policy)  # type: ignore[no-untyped-call]


def _checkpoint_policy(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    return (
        CheckpointPolicy.MUST_SAVE
        if "attention" in str(operation)
        else CheckpointPolicy.PREFER_RECOMPUTE
    )
