"""Parameters of a model: counts, digests, and the trainable ones on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from peft_methods.models import ranks
from peft_methods.models.host_threads import host_threads
from peft_methods.models.module_names import in_modules
from peft_methods.models.quantization import is_4bit, values_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COPIED_BYTES = 64 * 2**20  # that wait on the host at a time


def size_of(parameter: nn.Parameter) -> int:
    """Return the parameter's number of weights.

    A 4-bit parameter stores two per byte, so its `numel` is half the number.
    """
    if is_4bit(parameter):
        return parameter.quant_state.shape.numel()  # type: ignore[attr-defined]
    return parameter.numel()


def bytes_of(parameter: nn.Parameter, count: int | None = None) -> memoryview:
    """Return the parameter's values, or the first `count` of them, as bytes on the host."""
    values = values_of(parameter).contiguous().view(-1)[:count]
    return values.cpu().view(torch.uint8).numpy().data


def chunks_of(parameter: nn.Parameter) -> Iterator[memoryview]:
    """Yield the bytes of `bytes_of` in pieces. Each is overwritten by the next.

    A GPU writes them to page-locked memory, which it does several times as fast as to other memory.
    """
    values = values_of(parameter).contiguous().view(-1).view(torch.uint8)
    if not values.is_cuda:
        yield values.cpu().numpy().data
        return
    copied = torch.empty(min(len(values), COPIED_BYTES), dtype=torch.uint8, pin_memory=True)
    for chunk in torch.split(values, COPIED_BYTES):
        yield copied[: len(chunk)].copy_(chunk).numpy().data


def weights_digest(
    model: PreTrainedModel, head: tuple[str, ...], *, per_tensor: int | None = None
) -> str:
    """Return the sha256 of all parameters outside the head.

    With `per_tensor`, only so many values of each parameter are read. Parameters on the host are
    hashed side by side. On a GPU, copies side by side would need memory.
    """
    total = hashlib.sha256()
    outside = {n: p for n, p in model.named_parameters() if not in_modules(n, head)}
    on_host = all(parameter.device.type == "cpu" for parameter in outside.values())

    def digest(parameter: nn.Parameter) -> str:
        return hashlib.sha256(bytes_of(parameter, per_tensor)).hexdigest()

    with ThreadPoolExecutor(host_threads() if on_host else 1) as pool:
        for name, found in zip(outside, pool.map(digest, outside.values()), strict=True):
            total.update(f"{name}:{found}".encode())
    return total.hexdigest()


@dataclass(frozen=True)
class ParameterCounts:
    """Trainable parameters of the method and of the head, and all parameters of the model."""

    method: int
    head: int
    total: int


def count_parameters(model: nn.Module, head: tuple[str, ...]) -> ParameterCounts:
    """Count parameters at their full size: 4-bit parameters as if dequantised.

    PEFT's frozen copy of the head is not counted.
    """

    method = trained_head = total = 0
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        size = size_of(parameter)
        total += size
        if parameter.requires_grad:
            in_head = in_modules(name, head)
            trained_head += size * in_head
            method += size * (not in_head)
    return ParameterCounts(method, trained_head, total)


def trainable_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy all trainable parameters to the host of rank 0, by name; other ranks get none."""
    return on_first_host({n: p for n, p in model.named_parameters() if p.requires_grad})


def on_first_host(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors to the host of rank 0, one after the other; other ranks get none."""
    found = {}
    for name, tensor in tensors.items():
        complete = ranks.whole(tensor.detach())
        if ranks.is_first():
            found[name] = complete.cpu().contiguous()
    return found


def assign_parameters(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy each tensor into the model's parameter of the same name."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in tensors:
                parameter.copy_(ranks.placed_like(tensors[name], parameter))


def save_trainable(model: nn.Module, path: Path) -> int:
    """Save all trainable parameters as safetensors. Return the file's size in bytes."""
    from safetensors.torch import save_file

    tensors = trainable_tensors(model)
    if ranks.is_first():
        save_file(tensors, path)
    ranks.wait_for_all()
    return path.stat().st_size


def load_trainable(model: nn.Module, path: Path) -> None:
    """Load the parameters written by `save_trainable` into the model."""
    from safetensors.torch import load_file

    assign_parameters(model, load_file(path))
