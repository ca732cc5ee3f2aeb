"""Attention within the examples of a row of packed tokens, with kernels for it or with a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

from peft_methods.models.attention_registry import registered
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


class PackedAttention:
    """The attention of a model whose rows are packed tokens.

    A batch has the borders between sequences (`TokenCollator`). They take the place of the mask
    that transformers makes and hands to every layer. `longest` is the most tokens of a sequence.
    """

    def __init__(self, longest: int) -> None:
        self._longest = -(-longest // BLOCK) * BLOCK
        self._borders: torch.Tensor | None = None

    def loss(
        self, of_task: Callable[[nn.Module, Batch], LossSum]
    ) -> Callable[[nn.Module, Batch], LossSum]:
        """Return the task's loss, of packed batches."""

        def packed(model: nn.Module, batch: Batch) -> LossSum:
            self._borders = batch[BORDERS]
            return of_task(model, batch)

        return packed

    @contextmanager
    def applied(self, model: nn.Module, precision: str) -> Iterator[None]:
        """Context manager: the model attends within the sequences of a row.

        The flash attention kernel is used where it computes what the config asks for: it knows
        windows, dropout and shared heads of keys, and no cap of scores. Else the model keeps its
        attention, and has a mask of tokens times tokens.
        """
        config: Any = transformers_model(model).config
        before = config._attn_implementation
        if not has_kernel(model, precision):
            device = next(model.parameters()).device
            with mask_function(before, self._mask_for(before)), device:
                yield
            return
        config._attn_implementation = NAME
        try:
            with registered(NAME, _kernel(self._longest), lambda *_, **__: self._borders):
                yield
        finally:
            config._attn_implementation = before

    def _mask_for(self, kind: str) -> Callable[..., torch.Tensor]:
        """Return what makes masks for this attention: transformers', within sequences."""
        from transformers.masking_utils import and_masks, packed_sequence_mask_function

        make = eager_mask if kind == "eager" else sdpa_mask

        def mask(
            *_: Any, q_length: int, mask_function: Callable[..., Any], **options: Any
        ) -> torch.Tensor:
            assert self._borders is not None
            tokens = torch.arange(q_length, device=self._borders.device, dtype=self._borders.dtype)
            sequences = torch.searchsorted(self._borders[1:], tokens, right=True)[None]
            own = and_masks(mask_function, packed_sequence_mask_function(sequences))
            known = {**options, "attention_mask": None}
            return make(q_length=q_length, mask_function=own, **known)

        return mask


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
        )

    return packed_attention


def has_kernel(model: nn.Module, precision: str) -> bool:
    """Whether flash attention computes what this model's layers ask for."""
    base = transformers_model(model)
    return (
        has_flash_attention(base, precision)
        and bool(getattr(base, "_supports_flash_attn", False))
        and not getattr(base.config, "attn_logit_softcapping", None)
    )
