"""Flash attention for sequences of different lengths on a CPU, which has no kernel for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import library

OPERATORS = ("_flash_attention_forward", "_flash_attention_backward")


def attention_of_sequences(
    tensors: Sequence[torch.Tensor],
    borders: Sequence[torch.Tensor],
    *,
    is_causal: bool,
    scale: float | None = None,
    window: tuple[int | None, int | None] = (None, None),
    gradient: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Compute attention of queries, keys and values (tokens, heads, size), a sequence at a time.

    `borders` are those of queries and those of keys; in a sequence their ends are aligned. A query
    sees no more than `window` keys before its own place, and after it. With the gradient of the
    outputs, those of the tensors are returned instead.
    """
    scale = tensors[0].shape[-1] ** -0.5 if scale is None else scale
    groups = tensors[0].shape[1] // tensors[1].shape[1]  # heads of queries that share keys
    found = [torch.zeros_like(one) for one in (tensors if gradient is not None else tensors[:1])]
    queries, keys = ([slice(*pair) for pair in pairwise(one.tolist())] for one in borders)
    for own, others in zip(queries, keys, strict=True):
        q = tensors[0][own].transpose(0, 1)
        k, v = (x[others].transpose(0, 1).repeat_interleave(groups, 0) for x in tensors[1:])
        seen = _seen(q.shape[1], k.shape[1], window[0], 0 if is_causal else window[1])
        weights = (scale * q @ k.mT).masked_fill(~seen, -torch.inf).softmax(-1)
        if gradient is None:
            found[0][own] = (weights @ v).transpose(0, 1)
            continue
        of_output = gradient[own].transpose(0, 1)
        of_weights = of_output @ v.mT
        of_scores = weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True)) * scale
        found[0][own] = (of_scores @ k).transpose(0, 1)
        for place, one in ((1, of_scores.mT @ q), (2, weights.mT @ of_output)):
            found[place][others] = one.unflatten(0, (-1, groups)).sum(1).transpose(0, 1)
    return tuple(found)


def _seen(queries: int, keys: int, before: int | None, after: int | None) -> torch.Tensor:
    own = keys - queries + torch.arange(queries)[:, None]
    place, seen = torch.arange(keys), torch.ones(queries, keys, dtype=torch.bool)
    if before is not None:
        seen &= place >= own - before
    if after is not None:
        seen &= place <= own + after
    return seen


@contextmanager
def flash_attention_on_a_cpu() -> Iterator[None]:
    """Context manager: torch's operators of flash attention are computed on a CPU.

    What autograd and the compiler know of them is torch's own.
    """

    def forward(*given: Any, **options: Any) -> Any:
        query, dropout, is_causal = given[0], given[7], given[8]
        assert dropout == 0.0
        (found,) = attention_of_sequences(
            given[:3], given[3:5], is_causal=is_causal, **_options(options)
        )
        normaliser = torch.zeros(query.shape[1], query.shape[0])  # nothing reads it here
        seeds = (torch.zeros(2, dtype=torch.uint64), torch.zeros((), dtype=torch.uint64))
        return found, normaliser, *seeds, query.new_empty(0)

    def backward(*given: Any, **options: Any) -> Any:
        return attention_of_sequences(
            given[1:4],
            given[6:8],
            is_causal=given[11],
            gradient=given[0],
            **_options(options),
        )

    added = library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an operator of torch has another implementation
        for name, function in zip(OPERATORS, (forward, backward), strict=True):
            added.impl(name, function, "CPU")
    try:
        yield
    finally:
        added._destroy()


def _options(given: dict[str, Any]) -> dict[str, Any]:
    window = (given.get("window_size_left"), given.get("window_size_right"))
    return {"scale": given.get("scale"), "window": window}
