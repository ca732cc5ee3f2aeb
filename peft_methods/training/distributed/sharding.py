"""Fully sharded models: each rank holds a part of every weight (FSDP2, set up by accelerate)."""

from __future__ import annotations

import os
import warnings
from typing import Any

from torch import nn

from peft_methods.models import ranks

PRECISIONS = {"bf16": "bf16", "fp16": "fp16"}  # accelerate's names; the others are "no"


def plugin_of(model: nn.Module) -> Any:
    """Return accelerate's plugin: FSDP2, with each layer of the model gathered by itself.

    Weights are gathered in their own precision, so that a step computes what it does on one GPU.
    """
    from accelerate.utils import FullyShardedDataParallelPlugin

    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=sorted(layer_classes(model)),
        cpu_ram_efficient_loading=False,
        state_dict_type="FULL_STATE_DICT",
    )


def layer_classes(model: nn.Module) -> set[str]:
    """Return the names of the classes of a model's layers: those of its outermost lists."""
    found: set[str] = set()
    inside: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(one) for one in inside):
            inside.append(f"{name}.")
            kinds = {type(layer).__name__ for layer in module}
            found |= kinds if len(kinds) == 1 else set()
    return found


def shard(model: nn.Module, device: str, precision: str) -> None:
    """Divide the model's weights among the ranks, in place, and move them to the device.

    The model stays usable: a layer's weights are gathered while it computes. 4-bit weights keep
    what is needed to read them.
    """
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model
    from torch.distributed.fsdp import register_fsdp_forward_method

    accelerator = _accelerator(device, PRECISIONS.get(precision, "no"), plugin_of(model))
    states = {
        name: state
        for name, parameter in model.named_parameters()
        if (state := getattr(parameter, "quant_state", None)) is not None
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fsdp2_prepare_model(accelerator, model)
    for name, parameter in model.named_parameters():
        if name in states:
            parameter.quant_state = states[name]  # type: ignore[attr-defined]
    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")
    assert ranks.is_sharded(model), "every rank holds a part"


def _accelerator(device: str, precision: str, plugin: Any) -> Any:
    """Return an accelerator that shards models. The Trainer's own shares its state.

    accelerate offers FSDP on accelerators only, although nothing in it needs one.
    """
    from accelerate import Accelerator
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision, fsdp_plugin=plugin)
    state = accelerator.state
    if not accelerator.is_fsdp2:
        state.fsdp_plugin, state.distributed_type = plugin, DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    plugin.mixed_precision_policy = None
    return accelerator
