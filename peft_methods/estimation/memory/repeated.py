"""Operations that ran before on the same shapes: their results are made without running them again.

The layers of a model are alike, so that most operations of a step are repetitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
)

CONSTANTS = (bool, int, float, str, type(None))
NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format)
Form = Callable[[Sequence[Tensor]], Any]  # makes a result, given the tensors among the arguments


class Unknown(Exception):
    """An argument or a result of a kind that is not repeated."""


@dataclass(frozen=True)
class _Result:
    """A tensor in memory of its own, or a view of that of the argument number `of`."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    of: int | None
    mode: FakeTensorMode

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        storage = None if self.of is None else inputs[self.of].untyped_storage()
        with in_kernel_invocation_manager(self.mode):
            if storage is None:
                made = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
            else:
                made = torch.empty(0, dtype=self.dtype, device="meta")
                made.set_(storage, self.offset, self.shape, self.stride)
        return FakeTensor(self.mode, made, torch.device("cpu"))


class Repeated:
    """The forms of results by operation, shapes and types of what it was given."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._forms: dict[Any, Form | None] = {}

    def run(
        self,
        func: Any,
        args: tuple[Any, ...],
        options: Mapping[str, Any],
        compute: Callable[..., Any],
    ) -> Any:
        """Return the result of an operation, by `compute` where none is like it."""
        inputs: list[Tensor] = []
        try:
            if func._schema.is_mutable:
                raise Unknown
            key = func, _key(args, inputs), _key(tuple(options.items()), inputs)
        except Unknown:
            return compute(func, args, options)
        if key not in self._forms:
            result = compute(func, args, options)
            try:
                self._forms[key] = self._form(result, inputs)
            except Unknown:
                self._forms[key] = None
            return result
        form = self._forms[key]
        return compute(func, args, options) if form is None else form(inputs)

    def _form(self, result: Any, inputs: Sequence[Tensor]) -> Form:
        if isinstance(result, CONSTANTS):
            return lambda _: result
        if type(result) in (tuple, list):
            forms = [self._form(one, inputs) for one in result]
            kind = type(result)
            return lambda given: kind(form(given) for form in forms)
        if not _is_plain(result) or any(result is one for one in inputs):
            raise Unknown
        storage = result.untyped_storage()
        places = [one.untyped_storage()._cdata for one in inputs]
        of = places.index(storage._cdata) if storage._cdata in places else None
        size = math.prod(result.shape) * result.dtype.itemsize
        if of is None and (storage.nbytes() != size or result.storage_offset()):
            raise Unknown
        shape, stride = tuple(result.shape), tuple(result.stride())
        return _Result(shape, stride, result.storage_offset(), result.dtype, of, self._mode)


def _is_plain(one: Any) -> bool:
    return isinstance(one, FakeTensor) and one.layout == torch.strided and not one.is_conj()


def _key(one: Any, inputs: list[Tensor]) -> Any:
    """Return what an argument has in common with others like it. Tensors are added to `inputs`."""
    if isinstance(one, FakeTensor):
        if not _is_plain(one):
            raise Unknown
        inputs.append(one)
        return tuple(one.shape), one.stride(), one.storage_offset(), one.dtype
    if isinstance(one, CONSTANTS):
        return type(one), one
    if isinstance(one, (tuple, list)):
        return tuple([_key(part, inputs) for part in one])
    if isinstance(one, NAMED):
        return one
    raise Unknown
