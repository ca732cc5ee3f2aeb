"""Random weights of large models, drawn by several threads.

torch draws with one thread, and linear layers are drawn twice: by torch, then by transformers. For
seven billion parameters that takes more than four minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from peft_methods.models.host_threads import host_threads

Fill = Callable[[Tensor, torch.Generator], Tensor]
CHUNK = 2**22  # numbers that one thread draws at a time; smaller tensors are left to torch


class DrawInParallel(TorchFunctionMode):
    """Context in which `torch.nn.init` fills large tensors on the CPU by several threads.

    It covers the normal distribution, and the uniform one that linear layers start with. The
    numbers follow from torch's seed, whatever the number of threads, but are others than without
    this context.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Draw the numbers of a large tensor; call `func` for everything else."""
        given = kwargs or {}
        tensor, fill = given.get("tensor"), _fill_of(func, given)
        if fill is None or not isinstance(tensor, Tensor) or not _is_large(tensor):
            return func(*args, **given)
        with torch.no_grad():
            _fill(tensor, fill)
        return tensor


def _fill_of(func: Callable[..., Any], given: dict[str, Any]) -> Fill | None:
    """Return how a function of `torch.nn.init` fills a tensor; None if it is left to torch."""
    name = getattr(func, "__name__", "")
    if given.get("generator") is not None:
        return None
    if name == "normal_":
        return lambda chunk, generator: chunk.normal_(
            given["mean"], given["std"], generator=generator
        )
    if name == "kaiming_uniform_" and given["mode"] == "fan_in" and given["tensor"].dim() == 2:
        gain = torch.nn.init.calculate_gain(given["nonlinearity"], given["a"])
        bound = gain * math.sqrt(3 / given["tensor"].shape[1])
        return lambda chunk, generator: chunk.uniform_(-bound, bound, generator=generator)
    return None


def _is_large(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.numel() > CHUNK


def _fill(tensor: Tensor, fill: Fill) -> None:
    """Fill a tensor chunk by chunk, each from a generator with a seed of its own."""
    chunks = torch.split(tensor.detach().view(-1), CHUNK)
    seeds = torch.randint(2**62, (len(chunks),)).tolist()

    def draw(chunk: Tensor, seed: int) -> None:
        fill(chunk, torch.Generator().manual_seed(seed))

    with ThreadPoolExecutor(host_threads()) as threads:
        list(threads.map(draw, chunks, seeds))


def round_to_bfloat16(model: nn.Module) -> None:
    """Round all parameters to numbers that bfloat16 has. They keep their type."""
    values = [parameter.detach() for parameter in model.parameters()]
    chunks = [
        chunk
        for one in values
        for chunk in (torch.split(one.view(-1), CHUNK) if one.is_contiguous() else (one,))
    ]
    # Each thread of the pool has torch's number of threads for itself.
    with ThreadPoolExecutor(max(1, host_threads() // torch.get_num_threads())) as threads:
        list(threads.map(lambda chunk: chunk.copy_(chunk.bfloat16()), chunks))
