"""Attention within the examples of a row of packed tokens, with kernels for it or with a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn

from peft_methods.models.attention_registry import registered
from peft_methods.models.packed_prefix import borders_with
from peft_methods.models.packed_virtual_tokens import (
    HasVirtualTokens,
    packed_virtual_tokens,
    prefix_of,
)
from peft_methods.models.projection import transformers_model
from peft_methods.tasks.base import Batch, LossSum
from peft_methods.tasks.collate import BORDERS
from peft_methods.training.cuda_graphs.attention import (
    eager_mask,
    flash_attention,
    has_flash_attention,
    sdpa_mask,
)
from peft_methods.training.cuda_graphs.compat import mask_function

NAME = "peft_methods_packed_tokens"
BLOCK = 128  # tokens that the kernel computes at a time
# A setting of models such as OPT, which draw whether a layer is left out, and read it at once.
DRAWN_ON_THE_HOST = "layerdrop"


class PackedAttention:
    """The attention of a model whose rows are packed tokens.

    A batch has the borders between sequences (`TokenCollator`). They take the place of the mask
    that transformers makes and hands to every layer. `longest` is the most tokens of a sequence.
    """

    def __init__(self, longest: int) -> None:
        self._longest = -(-longest // BLOCK) * BLOCK
        self._borders: torch.Tensor | None = None
        self._virtual: HasVirtualTokens | None = None

    def loss(
        self, of_task: Callable[[nn.Module, Batch], LossSum]
    ) -> Callable[[nn.Module, Batch], LossSum]:
        """Return the task's loss, of packed batches."""

        def packed(model: nn.Module, batch: Batch) -> LossSum:
            self._borders = batch[BORDERS]
            if self._virtual is not None:
                self._virtual.borders = batch[BORDERS]
                self._borders = borders_with(batch[BORDERS], self._in_rows)
            return of_task(model, batch)

        return packed

    @property
    def _in_rows(self) -> int:
        """The number of virtual tokens in the row before each sequence."""
        return self._virtual.count if self._virtual and self._virtual.are_in_rows else 0

    @property
    def _in_keys(self) -> int:
        """The number of virtual tokens that have keys and values alone."""
        return self._virtual.count - self._in_rows if self._virtual else 0

    @contextmanager
    def applied(self, model: nn.Module, precision: str) -> Iterator[None]:
        """Context manager: the model attends within the sequences of a row.

        The flash attention kernel is used where it computes what the config asks for: it knows
        windows, dropout and shared heads of keys, and no cap of scores. Else the model keeps its
        attention, and has a mask of tokens times tokens. Virtual tokens of a method are before each
        sequence.
        """
        base = transformers_model(model)
        kind = base.config._attn_implementation
        device: AbstractContextManager[Any] = next(model.parameters()).device
        if hasattr(base.config, DRAWN_ON_THE_HOST):
            device = nullcontext()
        own: AbstractContextManager[None]
        with packed_virtual_tokens(model) as virtual:
            self._virtual = virtual
            if has_kernel(model, precision):
                kernel = _kernel(self._longest + self._in_rows)
                own = _used(base, kernel, lambda *_, **__: self._borders)
                device = nullcontext()
            elif self._in_keys > 0:
                own = _used(base, _masked(kind), self._mask_for(kind, self._in_keys))
            else:
                own = mask_function(kind, self._mask_for(kind))
            try:
                with own, device:
                    yield
            finally:
                self._virtual = self._borders = None

    def _mask_for(self, kind: str, count: int = 0) -> Callable[..., torch.Tensor]:
        """Return what makes masks for this attention: transformers', within sequences.

        The keys of `count` virtual tokens come before those of the row. The tokens of a sequence
        are behind them, as if it were alone.
        """
        from transformers.masking_utils import and_masks, packed_sequence_mask_function

        make = eager_mask if kind == "eager" else sdpa_mask

        def mask(
            *_: Any, q_length: int, mask_function: Callable[..., Any], **options: Any
        ) -> torch.Tensor:
            assert self._borders is not None
            tokens = torch.arange(q_length, device=self._borders.device, dtype=self._borders.dtype)
            sequences = torch.searchsorted(self._borders, tokens, right=True) - 1
            own = and_masks(mask_function, packed_sequence_mask_function(sequences[None]))
            known = {**options, "q_length": q_length, "attention_mask": None}
            found = make(mask_function=own, **known)
            if count == 0:
                return found
            places = count + tokens - self._borders[sequences]

            def behind(batch: Any, head: Any, query: Any, key: Any) -> Any:
                return mask_function(batch, head, places[query], key)

            prefix = make(mask_function=behind, **{**known, "kv_length": count})
            return torch.cat((prefix, found), dim=-1)

        return mask


@contextmanager
def _used(base: Any, attention: Callable[..., Any], mask: Callable[..., Any]) -> Iterator[None]:
    """Context manager: a model of transformers computes this attention, with such masks."""
    before = base.config._attn_implementation
    base.config._attn_implementation = NAME
    try:
        with registered(NAME, attention, mask):
            yield
    finally:
        base.config._attn_implementation = before


@cache
def _kernel(longest: int) -> Callable[..., Any]:
    """Return the attention for sequences of at most this many tokens.

    It is the same function each time, since compiled code depends on its identity.
    """

    def packed_attention(  # noqa: PLR0917  # transformers passes them by position
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        lacking = ("softcap", "s_aux", "position_bias")
        unknown = [name for name in lacking if options.get(name) is not None]
        if unknown:
            raise NotImplementedError(f"the kernel for packed tokens has no {unknown[0]}")
        return flash_attention(
            query,
            key,
            value,
            attention_mask,
            longest,
            is_causal=bool(getattr(module, "is_causal", True)),
            window=sliding_window,
            dropout=dropout,
            scaling=scaling,
            prefix=prefix_of(module),
        )

    return packed_attention


@cache
def _masked(kind: str) -> Callable[..., Any]:
    """Return transformers' attention of this kind, over the keys of a prefix and of a row.

    Raises `NotImplementedError` if it is a part of the model's code.
    """
    from transformers import AttentionInterface

    if kind not in (known := AttentionInterface()):
        raise NotImplementedError(f"its attention {kind!r} takes no keys of a prefix")
    attend = known[kind]

    def attention_with_prefix(  # transformers passes them by position
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        **options: Any,
    ) -> Any:
        if (prefix := prefix_of(module)) is not None:
            keys, values = prefix.to(key.dtype).transpose(1, 2)[:, None]
            key, value = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
        return attend(module, query, key, value, attention_mask, **options)

    return attention_with_prefix


def has_kernel(model: nn.Module, precision: str) -> bool:
    """Whether flash attention computes what this model's layers ask for."""
    base = transformers_model(model)
    return (
        has_flash_attention(base, precision)
        and bool(getattr(base, "_supports_flash_attn", False))
        and not getattr(base.config, "attn_logit_softcapping", None)
    )
