"""What compiled layers store for the backward pass, imitated for layers that run eagerly.

The cuda_graphs engine trains decoders with compiled layers: cheap values (norms, activation
functions, casts) are not stored but computed again from products, attention and the layer's input
(`training/cuda_graphs/compile.py`). torch's partitioner decides what is stored by a minimal cut;
here a cheap value is replaced by what it follows from, wherever that takes less.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from peft_methods.estimation.memory.recorder import Recorder
from peft_methods.tasks.linear_cross_entropy import CHUNK_LOSSES
from peft_methods.training.activation_checkpointing import layers_of
from peft_methods.training.cuda_graphs.four_bit import product


class _Stored:
    """A value that the backward pass needs: its storage, or its bytes where it is gone by now."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage


class _Kept:
    """A tensor that is stored."""

    def __init__(self, tensor: Tensor, stored: _Stored | None) -> None:
        self.tensor, self.stored = tensor, stored


class _Again:
    """A tensor that is computed again: its form, and what it is computed from."""

    def __init__(self, tensor: Tensor, sources: tuple[_Stored, ...]) -> None:
        self.form = tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype
        self.sources = sources


class _Partition:
    """Decides for each tensor that autograd saves whether it is stored."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._stored: weakref.WeakValueDictionary[int, _Stored] = weakref.WeakValueDictionary()

    def pack(self, tensor: Tensor) -> _Kept | _Again:
        """Return the tensor if it is stored, else what it is computed from."""
        recorder = self._recorder
        address = recorder.address_of(tensor)
        if address is None:
            return _Kept(tensor, None)
        if address not in recorder.parents or address in self._stored:
            return _Kept(tensor, self._hold(address))
        needed = self._needed(recorder.parents[address])
        if self._size(needed) >= recorder.sizes[address]:
            return _Kept(tensor, self._hold(address))
        for parent in recorder.parents[address]:
            needed |= self._known(parent)
        return _Again(tensor, tuple(map(self._hold, needed)))

    def _needed(self, addresses: Iterable[int]) -> set[int]:
        """Return what must be stored beside what is, to compute these values again.

        What a layer is given is stored anyway: weights, and the input that the layer before made.
        """
        found: set[int] = set()
        for one in addresses:
            if one <= self._recorder.given or one in self._stored:
                continue
            parents = self._recorder.parents.get(one)
            through = {one} if parents is None else self._needed(parents)
            found |= {one} if self._size(through) >= self._recorder.sizes[one] else through
        return found

    def _known(self, address: int) -> set[int]:
        """Return what is stored or given already, of all that this value is computed from."""
        if address <= self._recorder.given or address in self._stored:
            return {address}
        parents = self._recorder.parents.get(address, ())
        return {found for one in parents for found in self._known(one)}

    def _size(self, addresses: Iterable[int]) -> int:
        return sum(self._recorder.sizes[one] for one in addresses)

    def unpack(self, packed: _Kept | _Again) -> Tensor:
        """Return the tensor, computed again if it was not stored."""
        if isinstance(packed, _Kept):
            return packed.tensor
        shape, stride, dtype = packed.form
        return torch.empty_strided(shape, stride, dtype=dtype)

    def _hold(self, address: int) -> _Stored:
        known = self._stored.get(address)
        if known is not None:
            return known
        held = _Stored(self._recorder.storages[address]())
        if held.storage is None:
            self._recorder.phantom(address, held)
        self._stored[address] = held
        return held


@contextmanager
def as_compiled(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Context manager: what the model's layers and the losses store is as if compiled."""
    partition = _Partition(recorder)
    region = ExitStack()  # of the layer that runs

    def enter(_: nn.Module, __: Any) -> None:
        recorder.new_region()
        region.enter_context(saved_tensors_hooks(partition.pack, partition.unpack))

    def leave(_: nn.Module, __: Any, ___: Any) -> None:
        region.close()
        recorder.new_region()

    trained = any(p.requires_grad for layer in layers_of(model) for p in layer.parameters())
    inner: Any = model
    with ExitStack() as undone, _losses_fused(), _four_bit_products(model) as layers:
        undone.callback(region.close)  # where a layer has failed
        for layer in layers_of(model):
            undone.callback(layer.register_forward_pre_hook(enter).remove)
            undone.callback(layer.register_forward_hook(leave).remove)
        if trained:
            undone.callback(inner.disable_input_require_grads)
            inner.enable_input_require_grads()
        recorder.recomputes_ranks = bool(layers)
        undone.callback(setattr, recorder, "recomputes_ranks", False)
        yield


@contextmanager
def _losses_fused() -> Iterator[None]:
    """Context manager: losses of a chunk have no values in between, only their gradients."""

    def forward(
        logits: Tensor, targets: Tensor, scale: float, cap: float | None, gradients: bool
    ) -> tuple[Tensor, Tensor | None]:
        losses = torch.empty(len(logits), dtype=torch.float32)
        return losses, torch.empty_like(logits) if gradients else None

    CHUNK_LOSSES.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del CHUNK_LOSSES.forward


@contextmanager
def _four_bit_products(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Context manager: layers in NF4 compute as the engine does, see `four_bit.py`. Yields them."""
    from types import MethodType

    layers = []
    for layer in model.modules():
        weight: Any = layer._parameters.get("weight")
        state = getattr(weight, "quant_state", None)
        if state is None or state.quant_type != "nf4" or state.dtype == torch.float32:
            continue
        inner = state.state2
        tensors = (weight.data, state.absmax, inner.code, inner.absmax, state.offset, state.code)
        vars(layer).update(nf4=(tensors, list(state.shape)), forward=MethodType(product, layer))
        layers.append(layer)
    try:
        yield layers
    finally:
        for layer in layers:
            del layer.forward, layer.nf4
