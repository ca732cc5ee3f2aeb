"""A recipe's model without data: its tensors have sizes and types, but no memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from peft_methods.models import loading
from peft_methods.models.config import Quantization
from peft_methods.models.module_names import in_modules, top_modules
from peft_methods.models.quantization import protect_tensors
from peft_methods.utils.errors import ModelError

# What bitsandbytes notes at a quantised weight
KEPT = (
    *("quant_type", "compress_statistics", "quant_storage", "blocksize", "bnb_quantized"),
    "has_fp16_weights",
)
BLOCK = 64  # weights of a 4-bit layer that share a scale
SCALES_BLOCK = 256  # scales that share one


class Params4bit(FakeTensor):
    """A 4-bit weight without data. PEFT knows such weights by the name of their class."""


class Int8Params(FakeTensor):
    """An 8-bit weight without data."""


def fake_mode() -> FakeTensorMode:
    """Return the mode in which new tensors have no data."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def without_data(model: nn.Module, mode: FakeTensorMode, *, has_outliers: bool = False) -> None:
    """Replace all parameters and buffers by tensors of the host without data.

    Shared ones stay shared. `has_outliers`: some inputs of each 8-bit layer are above LLM.int8()'s
    threshold, as in models with pretrained weights (Dettmers et al. 2022, section 4). Normalised
    values of random weights are below it.
    """
    made: dict[int, nn.Parameter] = {}
    with mode:
        for module in model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    if id(parameter) not in made:
                        made[id(parameter)] = _parameter(parameter)
                    module._parameters[name] = made[id(parameter)]
            for name, buffer in list(module._buffers.items()):
                if buffer is not None:
                    module._buffers[name] = _empty(buffer)
            state: Any = getattr(module, "state", None)
            if hasattr(state, "SCB"):  # of an 8-bit layer
                weight: Any = module._parameters["weight"]
                state.CB, state.SCB = weight.data, torch.empty(len(weight))
                _multiply_as_on_gpus(module, has_outliers=has_outliers)


def _multiply_as_on_gpus(layer: nn.Module, *, has_outliers: bool) -> None:
    """Let an 8-bit layer on the host multiply in 8 bits in training too, as it does on a GPU.

    For training on a host, bitsandbytes multiplies by dequantised weights, in the precision of
    autocast. The product in 8 bits knows no autocast: its results have the type of the inputs,
    often fp32. Those of outliers are added by `addmm`, which autocast runs in half precision, so
    that the sum is in half precision too (bitsandbytes 0.50: `matmul` in autograd/_functions.py,
    `int8_mixed_scaled_mm` in backends/default/ops.py). Columns with outliers are stored besides;
    they are not counted, since their number follows from values.
    """
    from bitsandbytes import MatmulLtState

    class GpuState(MatmulLtState):
        """The state of a layer that says at any time that it does not train."""

        is_training = property(lambda _: False, lambda *_: None)

    state: Any = layer.state
    state.__class__, state.threshold = GpuState, 0.0
    if has_outliers:
        layer.register_forward_hook(_as_autocast)


def _as_autocast(_: nn.Module, __: Any, product: torch.Tensor) -> torch.Tensor:
    """Return a product in the type of autocast, if that is on."""
    if not torch.is_autocast_enabled("cpu"):
        return product
    return product.to(torch.get_autocast_dtype("cpu"))


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _parameter(parameter: Any) -> nn.Parameter:
    """Return the same parameter without data, with what bitsandbytes has attached to it."""
    made: Any = nn.Parameter(_empty(parameter), parameter.requires_grad)
    for name in KEPT:
        if hasattr(parameter, name):
            setattr(made, name, getattr(parameter, name))
    if hasattr(parameter, "SCB"):  # in 8 bits: the layer has them
        made.CB = made.SCB = None
        made.__class__ = Int8Params
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return made
    made.quant_state = _quantization_state(state)
    made.__class__ = Params4bit
    return made


def _quantization_state(state: Any) -> Any:
    """Return a copy of bitsandbytes' description of a 4-bit weight, without data."""
    made = copy.copy(state)
    for name, value in vars(state).items():
        if isinstance(value, torch.Tensor):
            setattr(made, name, _empty(value))
    if state.state2 is not None:
        made.state2 = _quantization_state(state.state2)
    return made


def quantize(model: Any, kind: Quantization, compute: torch.dtype) -> None:
    """Replace the linear layers that a run quantises by layers of bitsandbytes, on the meta device.

    Their forward and backward passes are then those that a run has. Raises `ModelError` for formats
    of other libraries.
    """
    if kind == "torchao_int8":
        raise ModelError("there is no estimate for weights that torchao stores", setting="method")
    kept = (*top_modules(model), f"{model.base_model_prefix}.pooler")
    whole = model._keep_in_fp32_modules or ()  # last parts of names, such as "wo" in T5
    with torch.device(loading.META):
        for parent, name, layer in list(_linear_layers(model, kept)):
            if name in whole:
                continue
            new = _eight_bits(layer) if kind == "int8" else _four_bits(layer, kind, compute)
            setattr(parent, name, new)
    model.is_loaded_in_8bit = kind == "int8"
    model.is_loaded_in_4bit = kind != "int8"
    protect_tensors(model)


def _linear_layers(
    model: nn.Module, kept: tuple[str, ...]
) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield parent, name and layer of the linear layers outside these modules."""
    from transformers.pytorch_utils import Conv1D

    for path, module in model.named_modules():
        for name, child in module.named_children():
            whole = f"{path}.{name}" if path else name
            if type(child) in (nn.Linear, Conv1D) and not in_modules(f"{whole}.weight", kept):
                yield module, name, child


def _sizes(layer: Any) -> tuple[int, int]:
    """Return the inputs and outputs of a linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    inputs, outputs = layer.weight.shape
    return int(inputs), int(outputs)


def _four_bits(layer: nn.Module, kind: str, compute: torch.dtype) -> nn.Module:
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Linear4bit
    from bitsandbytes.nn import Params4bit as Packed

    inputs, outputs = _sizes(layer)
    new: Any = Linear4bit(1, 1, bias=False, compute_dtype=compute, quant_type=kind, device="meta")
    new.in_features, new.out_features = inputs, outputs
    weights = inputs * outputs
    scales = -(-weights // BLOCK)
    of_scales = QuantState(
        torch.empty(-(-scales // SCALES_BLOCK)),
        blocksize=SCALES_BLOCK,
        code=torch.empty(256),
        dtype=torch.float32,
    )
    state = QuantState(
        torch.empty(scales, dtype=torch.uint8),
        shape=torch.Size((outputs, inputs)),
        blocksize=BLOCK,
        code=torch.empty(16),
        quant_type=kind,
        dtype=compute,
        offset=torch.empty(()),
        state2=of_scales,
    )
    packed = torch.empty(-(-weights // 2), 1, dtype=torch.uint8)
    new.weight = Packed(packed, False, state, BLOCK, True, kind, bnb_quantized=True, module=new)
    new.quant_state, new.bias = state, layer.bias
    new.compute_type_is_set = True
    new.support_avx512bf16_for_cpu = False  # else it is packed for the host's own kernel
    return new


def _eight_bits(layer: nn.Module) -> nn.Module:
    from bitsandbytes.nn import Linear8bitLt

    inputs, outputs = _sizes(layer)
    new: Any = Linear8bitLt(1, 1, bias=False, has_fp16_weights=False, threshold=0.0, device="meta")
    new.in_features, new.out_features = inputs, outputs
    parameter: Any = nn.Parameter(torch.empty(outputs, inputs, dtype=torch.int8), False)
    parameter.CB, parameter.SCB, parameter.has_fp16_weights = parameter.data, None, False
    new.weight, new.bias = parameter, layer.bias
    new.state.CB, new.state.SCB = parameter.data, torch.empty(outputs)
    return new
