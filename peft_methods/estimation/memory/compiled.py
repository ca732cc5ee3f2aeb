"""What compiled layers store for the backward pass, imitated for layers that run eagerly.

The cuda_graphs engine trains decoders with compiled layers: cheap values (norms, activation
functions, casts) are not stored but computed again from products, attention and the layer's input
(`training/cuda_graphs/compile.py`). torch's partitioner decides what is stored, and is asked for
each kind of layer (`partition.py`). Where it cannot be, a cheap value is replaced by what it
follows from, wherever that takes less.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from peft_methods.estimation.memory.partition import (
    StoredSizes,
    is_in_four_bits,
    stored_by_compiler,
    tokens_of,
)
from peft_methods.estimation.memory.recorder import Recorder
from peft_methods.tasks.linear_cross_entropy import CHUNK_LOSSES
from peft_methods.training.activation_checkpointing import layers_of
from peft_methods.training.cuda_graphs.four_bit import faster_products


class _Stored:
    """A value that the backward pass needs: its storage, or its bytes where it is gone by now."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage


class _Kept:
    """A tensor that is stored, and what is released with it."""

    def __init__(self, tensor: Tensor, *stored: Any) -> None:
        self.tensor, self.stored = tensor, stored


class _Again:
    """A tensor that is computed again: its form, and what it is computed from."""

    def __init__(self, tensor: Tensor, sources: tuple[Any, ...]) -> None:
        self.form = tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype
        self.sources = sources


class _Unseen:
    """What a layer stores beside tensors that autograd saves. It is released with the last."""


class _Partition:
    """Decides for each tensor that autograd saves whether it is stored."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._stored: weakref.WeakValueDictionary[int, _Stored] = weakref.WeakValueDictionary()
        self._left: list[int] | None = None  # bytes that the layer stores and that have no tensor
        self._unseen = _Unseen()

    def enter(self, sizes: list[int] | None) -> None:
        """Begin a layer that stores tensors of so many bytes, as far as that is known."""
        self._left, self._unseen = sizes, _Unseen()

    def leave(self) -> None:
        """End the layer: what it stores without a tensor of autograd's is there from now on."""
        for size in self._left or ():
            self._recorder.phantom_bytes(size, "values of a compiled layer (stored)", self._unseen)
        self._left, self._unseen = None, _Unseen()

    def pack(self, tensor: Tensor) -> _Kept | _Again:
        """Return the tensor if it is stored, else what it is computed from."""
        recorder = self._recorder
        address = recorder.address_of(tensor)
        if address is None:
            return _Kept(tensor)
        if self._left is not None:
            return self._as_partitioned(tensor, address, self._left)
        if address not in recorder.parents or address in self._stored:
            return _Kept(tensor, self._hold(address))
        needed = self._needed(recorder.parents[address])
        if self._size(needed) >= recorder.sizes[address]:
            return _Kept(tensor, self._hold(address))
        for parent in recorder.parents[address]:
            needed |= self._known(parent)
        return _Again(tensor, tuple(map(self._hold, needed)))

    def _as_partitioned(self, tensor: Tensor, address: int, left: list[int]) -> _Kept | _Again:
        """Return a given tensor, or one of the size of what is stored, if there is any left."""
        size = self._recorder.sizes[address]
        if address <= self._recorder.given or address in self._stored:
            return _Kept(tensor, self._hold(address), self._unseen)
        if size not in left:
            return _Again(tensor, (self._unseen,))
        left.remove(size)
        return _Kept(tensor, self._hold(address), self._unseen)

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
def as_compiled(
    model: nn.Module, recorder: Recorder, known: dict[Any, StoredSizes | None], *, asks: bool = True
) -> Iterator[None]:
    """Context manager: what the model's layers and the losses store is as if compiled.

    `known` has what kinds of layers store, and gets what is learnt. `asks`: the partitioner is
    asked; it does not know layers that are computed again as a whole, nor those that the compiler
    divides into several graphs.
    """
    partition = _Partition(recorder)
    region = ExitStack()  # of the layer that runs

    def enter(layer: nn.Module, args: Any, options: Any) -> None:
        recorder.new_region()
        sizes = _stored(layer, args, options, known) if asks else None
        partition.enter(None if sizes is None else sizes.bytes_for(tokens_of(args)))
        region.enter_context(saved_tensors_hooks(partition.pack, partition.unpack))

    def leave(_: nn.Module, __: Any, ___: Any) -> None:
        region.close()
        partition.leave()
        recorder.new_region()

    trained = any(p.requires_grad for layer in layers_of(model) for p in layer.parameters())
    inner: Any = model
    with ExitStack() as undone, _losses_fused(), faster_products(model):
        undone.callback(region.close)  # where a layer has failed
        for layer in layers_of(model):
            undone.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
            undone.callback(layer.register_forward_hook(leave).remove)
        if trained:
            undone.callback(inner.disable_input_require_grads)
            inner.enable_input_require_grads()
        for layer in filter(is_in_four_bits, model.modules() if asks else ()):
            undone.callback(layer.register_forward_hook(_unconverted).remove)
        recorder.recomputes_ranks = any("nf4" in vars(one) for one in model.modules())
        undone.callback(setattr, recorder, "recomputes_ranks", False)
        yield


def _unconverted(layer: Any, _: Any, output: Tensor) -> Tensor:
    """Return a product in its own precision: the compiler has none of the converted values."""
    return output.to(layer.compute_dtype)


def _stored(
    layer: nn.Module, args: Any, options: Any, known: dict[Any, StoredSizes | None]
) -> StoredSizes | None:
    """Return what a layer stores, known from another one of its kind or asked for."""
    named = layer.named_parameters()
    kind = args[0].requires_grad, *((n, tuple(p.shape), p.requires_grad) for n, p in named)
    if kind not in known:
        known[kind] = stored_by_compiler(layer, args, options)
    return known[kind]


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
