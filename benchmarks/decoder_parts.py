"""What the benchmark of decoders does to a model: undoes patches, checks products, quantises."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peft_methods.models.projection import transformers_model


@contextmanager
def patches_undone(model: Any) -> Iterator[None]:
    """Context manager: classes and functions of the model's module that Liger replaces come back.

    So does the model's forward method, which accelerate replaces by one with autocast, unless it
    has prepared the model before. What Liger changes in the parts of this model stays.
    """
    kind = type(transformers_model(model))
    module = sys.modules[kind.__module__]
    before, forward = dict(vars(module)), kind.forward
    models = (model, transformers_model(model))
    try:
        yield
    finally:
        vars(module).update(before)
        kind.forward = forward
        for one in models:
            for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
                vars(one).pop(name, None)


@contextmanager
def products_in(dtype: torch.dtype, model: nn.Module) -> Iterator[None]:
    """Context manager: products of the model's layers must be in this precision.

    Otherwise loops would be compared that do other work.
    """

    def check(module: nn.Module, given: Any, product: torch.Tensor) -> None:
        assert product.dtype == dtype, f"a product is in {product.dtype}, not in {dtype}"

    layers = [one for name, one in model.named_modules() if name.endswith("mlp.down_proj")]
    hook = layers[0].register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()


def quantize(model: Any, device: str) -> None:
    """Quantise the linear layers of a model's layers in place, as `from_pretrained` would."""
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear or ".layers." not in name:
            continue
        made = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        made.weight = bnb.nn.Params4bit(
            module.weight.data,
            requires_grad=False,
            compress_statistics=True,
            quant_type="nf4",
            module=made,
        ).to(device)
        made.bias = module.bias
        model.set_submodule(name, made)
    model.is_loaded_in_4bit = True
