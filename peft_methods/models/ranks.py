"""The processes of a run over several GPUs: which one this is, and what they exchange.

Each is a rank, numbered from 0. All must call the same functions of this module in the same order.
A run on one GPU has rank 0 alone, for which nothing is exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def count() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this rank."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this is rank 0, which writes the files."""
    return rank() == 0


def wait_for_all() -> None:
    """Wait until every rank has got here."""
    summed([0.0])


def gathered(value: T) -> list[T]:
    """Return the values of all ranks, in their order."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def summed(values: Sequence[float]) -> list[float]:
    """Return the sums of numbers over all ranks."""
    if count() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)  # on the host: the GPU need not wait
    dist.all_reduce(tensor)
    return [float(one) for one in tensor]


def dealt(items: Sequence[T]) -> list[T]:
    """Return this rank's part of the items, dealt like cards; each rank has as many.

    Where they do not come out even, the first item is dealt again.
    """
    missing = -len(items) % count()
    return [*items, *list(items[:1]) * missing][rank() :: count()]


def collected(results: Sequence[T], items: int) -> list[T]:
    """Return the results of `items` items that were dealt, in their order, on all ranks."""
    of_ranks = gathered(list(results))
    return [of_ranks[item % count()][item // count()] for item in range(items)]


def is_sharded(model: nn.Module) -> bool:
    """Whether each rank holds only a part of the model's weights."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def divide_again(model: nn.Module) -> None:
    """Free weights that the last evaluation has gathered: changes of these would be lost."""
    if count() > 1:
        from torch.distributed.fsdp import FSDPModule

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor of which each rank holds a part, as a whole; others as they are."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return this rank's part of a whole tensor if the other is in parts, else the tensor."""
    if not hasattr(other, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(other, DTensor)
    there = tensor.to(other.device_mesh.device_type)
    return distribute_tensor(there, other.device_mesh, other.placements, src_data_rank=None)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model itself where it is wrapped to exchange gradients."""
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    assert isinstance(inner, nn.Module)
    return inner
