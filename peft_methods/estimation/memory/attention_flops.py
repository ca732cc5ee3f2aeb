"""FLOPs of attention whose keys and values have fewer heads than its queries.

torch 2.13 counts such attention; the formulas of torch 2.11 raise an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import flop_counter

aten = torch.ops.aten
Shape = Sequence[int]
FORWARD: Any = flop_counter.sdpa_flop_count
BACKWARD: Any = flop_counter.sdpa_backward_flop_count


def attention_formulas() -> dict[Any, Callable[..., int]]:
    """Return formulas of shapes (batch, heads, rows, width) for attention and its backward pass."""
    kinds = ("efficient", "flash", "cudnn")
    names = [f"_scaled_dot_product_{kind}_attention" for kind in kinds]
    return {getattr(aten, name): _forward for name in names} | {
        getattr(aten, f"{name}_backward"): _backward for name in names
    }


def _forward(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(FORWARD(query, _repeated(key, query), _repeated(value, query)))


def _backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    key, value = _repeated(key, query), _repeated(value, query)
    return int(BACKWARD(gradient, query, key, value))


def _repeated(shape: Shape, query: Shape) -> Shape:
    """Return the shape with as many heads as the queries have: each is used so many times."""
    return (shape[0], query[1], *shape[2:])
