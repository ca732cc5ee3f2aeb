"""Breakdown of the training memory peak.

The allocator's trace of one step shows every block alive at the peak, and each is assigned to a
part: weights, gradients, optimizer state, activations or workspace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from peft_methods.models.torchao_weights import is_from_torchao, parts_of
from peft_methods.models.workspaces import free_cublas_workspaces


@dataclass(frozen=True)
class Block:
    """A block of memory. `size` is the number of bytes requested.

    `allocated_at` is the index of the event that allocated it, or -1 if it is older than the trace.
    """

    address: int
    size: int
    allocated_at: int


@dataclass(frozen=True)
class Event:
    """An allocation, or a release (`size` 0)."""

    address: int
    size: int


def blocks_at_peak(live: Mapping[int, int], events: Sequence[Event]) -> list[Block]:
    """Return the blocks alive when their total size was highest, at the first such moment.

    `live` maps addresses to sizes at the start of the trace.
    """
    alive = {address: Block(address, size, -1) for address, size in live.items()}
    total = highest = sum(live.values())
    peak_index = -1
    for index, change in _replay(alive, events):
        total += change
        if total > highest:
            highest, peak_index = total, index
    alive = {address: Block(address, size, -1) for address, size in live.items()}
    for _ in _replay(alive, events[: peak_index + 1]):
        pass
    return list(alive.values())


def _replay(alive: dict[int, Block], events: Sequence[Event]) -> Iterable[tuple[int, int]]:
    """Apply the events to the blocks alive. Yields (index, change in bytes)."""
    for index, event in enumerate(events):
        before = alive.pop(event.address, None)
        if event.size:
            alive[event.address] = Block(event.address, event.size, index)
        yield index, event.size - (before.size if before else 0)


@dataclass(frozen=True)
class Owners:
    """Addresses of weights, optimizer state, workspaces and gradients.

    `last_gradient` maps a gradient's address to the index of the event that allocated it (-1 if it
    is older than the trace). `backward_done` is the index of the first event after the backward
    pass.
    """

    weights: frozenset[int]
    optimizer_state: frozenset[int]
    workspace: frozenset[int]
    last_gradient: Mapping[int, int]
    backward_done: int


def bytes_by_part(blocks: Iterable[Block], owners: Owners) -> dict[str, int]:
    """Sum the blocks' bytes by part. No part is a remainder: blocks without an owner are left out.

    Activations are all blocks allocated by the forward and backward pass that are not gradients of
    weights: saved tensors, half-precision copies of weights, gradients of activations, inputs.
    """
    parts = dict.fromkeys(
        ("weights", "gradients", "optimizer_state", "activations", "workspace"), 0
    )
    for block in blocks:
        part = _part(block, owners)
        if part is not None:
            parts[part] += block.size
    return parts


def _part(block: Block, owners: Owners) -> str | None:
    if owners.last_gradient.get(block.address) == block.allocated_at:
        return "gradients"
    if block.allocated_at >= 0:
        return "activations" if block.allocated_at < owners.backward_done else None
    for part in ("weights", "optimizer_state", "workspace"):
        if block.address in getattr(owners, part):
            return part
    return None


class PeakTrace:
    """Context manager: trace one training step on a GPU and break down its memory peak.

    The optimizer state must exist at the start. The gradients must still exist at the end.

    with PeakTrace(model, optimizer) as trace:
        forward, backward, trace.backward_done(), optimizer step
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self.parts: dict[str, int] = {}
        self._mark: torch.Tensor | None = None

    def __enter__(self) -> PeakTrace:
        self._workspace = _workspace()
        self._live = _blocks()
        torch.cuda.memory._record_memory_history("all", context=None, clear_history=True)
        return self

    def backward_done(self) -> None:
        """Mark the end of the backward pass in the trace, by a small allocation."""
        self._mark = torch.empty(1, device="cuda")

    def __exit__(self, *error: Any) -> None:
        torch.cuda.synchronize()
        trace: Any = torch.cuda.memory._snapshot()
        torch.cuda.memory._record_memory_history(None)
        if error[0] is None:
            events = list(_events(trace["device_traces"][torch.cuda.current_device()]))
            self.parts = bytes_by_part(blocks_at_peak(self._live, events), self._owners(events)) | {
                "rounding": _allocator_overhead()
            }

    def _owners(self, events: Sequence[Event]) -> Owners:
        last_allocation = {event.address: index for index, event in enumerate(events) if event.size}
        mark = (
            None
            if self._mark is None
            else last_allocation.get(self._mark.untyped_storage().data_ptr())
        )
        gradients = {
            address: last_allocation.get(address, -1)
            for address in _addresses(_gradients(self._model))
        }
        return Owners(
            weights=frozenset(_addresses(_weights(self._model))),
            optimizer_state=frozenset(
                _addresses(v for state in self._optimizer.state.values() for v in state.values())
            ),
            workspace=self._workspace,
            last_gradient=gradients,
            backward_done=len(events) if mark is None else mark,
        )


def _events(trace: Iterable[Mapping[str, Any]]) -> Iterable[Event]:
    for entry in trace:
        if entry["action"] == "alloc":
            yield Event(entry["addr"], entry["size"])
        elif entry["action"] == "free_completed":
            yield Event(entry["addr"], 0)


def _blocks() -> dict[int, int]:
    """Map the address of every allocated block to the number of bytes requested."""
    segments: Any = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
    return {
        block["address"]: block["requested_size"]
        for s in segments
        for block in s["blocks"]
        if block["state"] == "active_allocated"
    }


def _allocator_overhead() -> int:
    """Return the bytes allocated beyond those requested.

    The allocator rounds up to multiples of 512 bytes and may add up to a megabyte to a large block.
    This is the difference of two peaks since the phase began. Both peaks are at the same moment if
    the traced step is the peak of the phase.
    """
    counted = torch.cuda.memory_stats()
    return int(counted["allocated_bytes.all.peak"] - counted["requested_bytes.all.peak"])


def _workspace() -> frozenset[int]:
    """Return the addresses of the cuBLAS workspaces.

    They are the blocks that vanish when the workspaces are cleared and return after a matrix
    product.
    """
    if not free_cublas_workspaces():
        return frozenset()
    without = set(_blocks())
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(16, 16, device="cuda", dtype=dtype, requires_grad=True)
        torch.autograd.backward(F.linear(square, square, square[0]).sum())
        del square
    torch.cuda.synchronize()
    return frozenset(set(_blocks()) - without)


def _gradients(model: nn.Module) -> Iterable[torch.Tensor]:
    return (p.grad for p in model.parameters() if p.grad is not None)


def _weights(model: nn.Module) -> Iterable[torch.Tensor]:
    """Yield parameters, buffers and the quantization state of 4-bit and 8-bit parameters.

    A 4-bit state holds the scales, the scales of the scales and the code book. The scales of 8-bit
    weights are the parameter's until the layer's first forward pass, then the layer's. Of a weight
    that torchao stores, its parts are yielded: it has no storage.
    """
    for parameter in model.parameters():
        yield from parts_of(parameter) if is_from_torchao(parameter) else (parameter,)
        state: Any = getattr(parameter, "quant_state", None)
        while state is not None:
            yield from (v for v in vars(state).values() if isinstance(v, torch.Tensor))
            state = state.state2
    for module in model.modules():
        for owner in (getattr(module, "weight", None), getattr(module, "state", None)):
            if isinstance(scales := getattr(owner, "SCB", None), torch.Tensor):
                yield scales
    yield from model.buffers()


def _addresses(tensors: Iterable[Any]) -> Iterable[int]:
    """Yield the address of each tensor's storage. Anything but a tensor on the GPU is skipped.

    Of a tensor that is divided among GPUs it is this one's part.
    """
    own = (getattr(t, "_local_tensor", t) for t in tensors)
    return (
        t.untyped_storage().data_ptr() for t in own if isinstance(t, torch.Tensor) and t.is_cuda
    )
