"""What the training peak is made of: every block of memory alive at that instant, told from the allocator's own trace of one step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from peft_methods.engines.base import free_workspaces


@dataclass(frozen=True)
class Block:
    """Memory at an address, of the bytes asked for. `born` is the index of the event that allocated it, -1 for one older than the trace."""

    address: int
    size: int
    born: int


@dataclass(frozen=True)
class Event:
    """An allocation, or a release (of `size` 0)."""

    address: int
    size: int


def at_peak(live: Mapping[int, int], events: Sequence[Event]) -> list[Block]:
    """The blocks alive when their sum was highest (the first such instant). `live` maps addresses to sizes at the start."""
    now = {address: Block(address, size, -1) for address, size in live.items()}
    total = highest = sum(live.values())
    instant = -1
    for index, block in _replayed(now, events):
        total += block
        if total > highest:
            highest, instant = total, index
    now = {address: Block(address, size, -1) for address, size in live.items()}
    for _ in _replayed(now, events[: instant + 1]):
        pass
    return list(now.values())


def _replayed(now: dict[int, Block], events: Sequence[Event]) -> Iterable[tuple[int, int]]:
    """Apply events to the blocks alive; yields (index, change in bytes)."""
    for index, event in enumerate(events):
        before = now.pop(event.address, None)
        if event.size:
            now[event.address] = Block(event.address, event.size, index)
        yield index, event.size - (before.size if before else 0)


@dataclass(frozen=True)
class Owners:
    """Addresses by what they hold. `last_gradient` maps a gradient's address to the event that allocated it (-1: older).

    `backward_done` is the index of the first event after the backward pass.
    """

    weights: frozenset[int]
    optimizer_state: frozenset[int]
    workspace: frozenset[int]
    last_gradient: Mapping[int, int]
    backward_done: int


def parts_of(blocks: Iterable[Block], owners: Owners) -> dict[str, int]:
    """Bytes by part. No part is a remainder: a block that nobody owns is in none of them.

    Activations are what the forward and the backward pass allocated and did not leave behind as gradients: saved
    tensors, half-precision copies of weights, gradients of activations, inputs.
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
    if owners.last_gradient.get(block.address) == block.born:
        return "gradients"
    if block.born >= 0:
        return "activations" if block.born < owners.backward_done else None
    for part in ("weights", "optimizer_state", "workspace"):
        if block.address in getattr(owners, part):
            return part
    return None


class PeakTrace:
    """Traces one training step on a GPU. Optimizer state must be there already; gradients must still be there at the end.

    with PeakTrace(model, optimizer) as trace: forward, backward, trace.backward_done(), optimizer step
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
        """The backward pass has ended: a mark in the trace."""
        self._mark = torch.empty(1, device="cuda")

    def __exit__(self, *error: Any) -> None:
        torch.cuda.synchronize()
        trace: Any = torch.cuda.memory._snapshot()
        torch.cuda.memory._record_memory_history(None)
        if error[0] is None:
            events = list(_events(trace["device_traces"][torch.cuda.current_device()]))
            self.parts = parts_of(at_peak(self._live, events), self._owners(events)) | {
                "rounding": _rounding()
            }

    def _owners(self, events: Sequence[Event]) -> Owners:
        born = {event.address: index for index, event in enumerate(events) if event.size}
        mark = born.get(self._mark.untyped_storage().data_ptr()) if self._mark is not None else None
        gradients = {
            address: born.get(address, -1) for address in _addresses(_gradients(self._model))
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
    """Address of every block that is handed out now, and how many bytes were asked for."""
    segments: Any = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
    return {
        block["address"]: block["requested_size"]
        for s in segments
        for block in s["blocks"]
        if block["state"] == "active_allocated"
    }


def _rounding() -> int:
    """Bytes that the allocator held beyond those asked for: to whole 512 bytes, and up to a megabyte of a large block.

    It counts the highest of each since the phase began, which are of one instant where the traced step is the phase's peak.
    """
    counted = torch.cuda.memory_stats()
    return int(counted["allocated_bytes.all.peak"] - counted["requested_bytes.all.peak"])


def _workspace() -> frozenset[int]:
    """Where the matrix library keeps its scratch memory: the blocks that go when it is told to free it, once they are back."""
    if not free_workspaces():
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
    """Parameters, buffers, and what a 4-bit parameter needs to be read: its scales, their scales, the code book."""
    for parameter in model.parameters():
        yield parameter
        state: Any = getattr(parameter, "quant_state", None)
        while state is not None:
            yield from (v for v in vars(state).values() if isinstance(v, torch.Tensor))
            state = state.state2
    yield from model.buffers()


def _addresses(tensors: Iterable[Any]) -> Iterable[int]:
    """Where each tensor's memory begins; what is no tensor on the GPU has no address."""
    return (
        t.untyped_storage().data_ptr() for t in tensors if isinstance(t, torch.Tensor) and t.is_cuda
    )
