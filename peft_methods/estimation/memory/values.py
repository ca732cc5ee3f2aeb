"""Values of whole numbers and masks: of all values, these alone decide the sizes of results.

A program without data still has the ids of its batch, and what follows from them (a mask of the
ends of rows, places in a matrix) is computed beside it. An operation whose results have as many
elements as a mask has true values then has its true size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

MOST = 2**22  # elements of a tensor whose values are followed
aten = torch.ops.aten
# Results without values: memory as it was left
UNDEFINED = frozenset(
    {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}
)


class KnownValues:
    """The values of tensors without data, as far as they follow from what is known."""

    def __init__(self) -> None:
        self._known: Any = WeakTensorKeyDictionary()

    def learn(self, tensor: Tensor, values: Tensor) -> None:
        """Note the values of a tensor of whole numbers or truth values."""
        if not values.is_floating_point():
            self._known[tensor] = values

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return the values of a tensor, None where they are unknown."""
        if not isinstance(tensor, FakeTensor):
            return tensor if tensor.device.type == "cpu" else None
        found: Tensor | None = self._known.get(tensor)
        return found

    def run(self, func: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Run an operation. Where values decide a size, it is theirs."""
        own = OWN.get(func._overloadpacket)
        return func(*args, **options) if own is None else own(self, func, *args, **options)

    def follow(
        self,
        func: Any,
        args: tuple[Any, ...],
        options: Mapping[str, Any],
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
    ) -> None:
        """Compute the values of an operation's results, if all that it reads is known."""
        if not outputs or any(one.is_floating_point() for one in outputs):
            return
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        is_large = any(one.numel() > MOST for one in outputs)
        is_undefined = func._overloadpacket in UNDEFINED or is_random or is_large
        if is_undefined or any(self.of(one) is None for one in inputs):
            self._forget(outputs)
            return
        with unset_fake_temporarily():
            args, options = tree_map(self._value, (args, dict(options)))
            values = _tensors(func(*args, **options))
        for tensor, value in zip(outputs, values, strict=True):
            if isinstance(tensor, FakeTensor):
                self._known[tensor] = value

    def _value(self, one: Any) -> Any:
        return self.of(one) if isinstance(one, Tensor) else one

    def _forget(self, outputs: Sequence[Tensor]) -> None:
        """Forget values that were written over, and those of views of the same memory."""
        written = {one.untyped_storage()._cdata for one in outputs if one in self._known}
        if written:
            for one in [k for k in self._known if k.untyped_storage()._cdata in written]:
                del self._known[one]


def _tensors(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]


def _places(mask: Tensor, known: KnownValues) -> Tensor:
    """Return the places of true values as a matrix without data; all, where values are unknown."""
    values = known.of(mask)
    if values is None:
        return torch.empty(mask.numel(), mask.ndim, dtype=torch.int64)
    with unset_fake_temporarily():
        places = values.nonzero()
    made = torch.empty(places.shape, dtype=torch.int64)
    known.learn(made, places)
    return made


def _nonzero(known: KnownValues, func: Any, mask: Tensor) -> Tensor:
    return _places(mask, known)


def _index(known: KnownValues, func: Any, values: Tensor, indices: Sequence[Tensor | None]) -> Any:
    """Index with masks as places of their true values, as kernels do it."""
    places: list[Tensor | None] = []
    for one in indices:
        if one is not None and one.dtype in (torch.bool, torch.uint8):
            places += _places(one, known).unbind(1)
        else:
            places.append(one)
    return func(values, places)


def _masked_select(known: KnownValues, func: Any, values: Tensor, mask: Tensor) -> Tensor:
    return torch.empty(len(_places(mask, known)), dtype=values.dtype)


def _distinct(known: KnownValues, func: Any, values: Tensor, *args: Any, **options: Any) -> Any:
    """Return as many elements as there are different values; all, where these are unknown."""
    real = known.of(values)
    with unset_fake_temporarily():
        full = torch.arange(values.numel()).view(values.shape) if real is None else real
        found = func(full, *args, **options)
    return tuple(torch.empty(one.shape, dtype=one.dtype) for one in found)


def _sparse_mask(known: KnownValues, func: Any, values: Tensor, mask: Tensor) -> Any:
    """Return a matrix's values at the places of a sparse one: as many as that has."""
    chosen = torch.empty(len(mask._values()), dtype=values.dtype)
    return torch.sparse_coo_tensor(mask._indices(), chosen, mask.shape, check_invariants=False)


OWN: Mapping[Any, Callable[..., Any]] = {
    aten.nonzero: _nonzero,
    aten.index: _index,
    aten.masked_select: _masked_select,
    aten.unique_consecutive: _distinct,
    aten._unique2: _distinct,
    aten.sparse_mask: _sparse_mask,
}
