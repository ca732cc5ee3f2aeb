"""Attention for steps that are captured: no look at the mask from the host, and no mask in memory where flash attention fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peft_methods.engines.base import HALF

PACKED, MASKED = "peft_methods_packed", "peft_methods_masked"


def avoid_attention_plans() -> None:
    """Keep scaled dot-product attention off cuDNN, which plans anew for each shape of batch.

    With batches padded to their longest row nearly every batch has a shape of its own, and the host plans for longer than the GPU
    computes: on an H100 a LoRA step of roberta-base took 109 ms with it, 45 without.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def row_borders(
    batch_size: int,
    q_length: int,
    attention_mask: torch.Tensor | None = None,
    *,
    device: Any,
    **_: Any,
) -> torch.Tensor:
    """Where each row's tokens and each row's padding begin in the batch laid end to end: int32 of shape (2 rows + 1,).

    Rows are padded at their end. Then tokens and padding are sequences of their own to the flash attention kernel
    (Dao 2023, arXiv:2307.08691), and the tokens of a row see each other alone: as with a mask, with none in memory.
    """
    starts = torch.arange(batch_size, device=device, dtype=torch.int32) * q_length
    lengths = (
        torch.full_like(starts, q_length)
        if attention_mask is None
        else attention_mask.sum(1, dtype=torch.int32)
    )
    whole = torch.full((1,), batch_size * q_length, device=device, dtype=torch.int32)
    return torch.cat([torch.stack([starts, starts + lengths], dim=1).flatten(), whole])


def packed_attention(  # noqa: PLR0917  # transformers gives them by place
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """(rows, heads, tokens, size) -> (rows, tokens, heads, size); `attention_mask` is what `row_borders` gave."""
    rows, heads, tokens, size = query.shape
    dtype = query.dtype if query.dtype in HALF.values() else torch.get_autocast_dtype("cuda")
    q, k, v = (
        x.transpose(1, 2).reshape(rows * tokens, heads, size).to(dtype) for x in (query, key, value)
    )
    mixed = torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        attention_mask,
        attention_mask,
        tokens,
        tokens,
        dropout,
        False,
        False,
        scale=scaling,
    )[0]
    return mixed.view(rows, tokens, heads, size), None


def _mask(*arguments: Any, **options: Any) -> torch.Tensor | None:
    """transformers' own, but always there: it leaves it out where nothing is padded, and the host would wait to know."""
    from transformers.masking_utils import sdpa_mask

    mask: torch.Tensor | None = sdpa_mask(
        *arguments, **{**options, "allow_is_bidirectional_skip": False}
    )
    return mask


def _added_mask(
    *arguments: Any, dtype: torch.dtype = torch.float32, **options: Any
) -> torch.Tensor:
    """As transformers' own for attention in plain operations, 0 or the least number, made without a number from the host."""
    mask = _mask(*arguments, **options)
    assert mask is not None
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


@contextmanager
def capturable_attention(model: nn.Module, precision: str) -> Iterator[str]:
    """Within it, attention is one of the two above where the model's class lets it be chosen; gives its name, or "own"."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if (name := _fitting(model, precision)) is None:
        with _own_attention(model):
            yield "own"
        return
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, row_borders)
    AttentionInterface.register(MASKED, sdpa_attention_forward)
    AttentionMaskInterface.register(MASKED, _mask)
    config: Any = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield name
    finally:
        config._attn_implementation = before


@contextmanager
def _own_attention(model: nn.Module) -> Iterator[None]:
    """Leaves a model its attention, as with MPNet's, which adds a bias to the scores, and its inputs without the host.

    The mask is made on the model's device, and so is what is made without saying where (MPNet's positions): a captured
    step cannot copy it there.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    config: Any = model.config
    kind = config._attn_implementation
    ALL_MASK_ATTENTION_FUNCTIONS[kind] = _added_mask if kind == "eager" else _mask
    try:
        with next(model.parameters()).device:
            yield
    finally:
        del ALL_MASK_ATTENTION_FUNCTIONS[kind]


def _fitting(model: nn.Module, precision: str) -> str | None:
    base: Any = model
    while hasattr(base, "get_base_model"):
        base = base.get_base_model()
    if not getattr(base, "_supports_attention_backend", False):
        return None
    device, config = next(base.parameters()).device, base.config
    has_flash = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    heads = getattr(config, "num_attention_heads", None)
    fits = (
        heads is not None
        and (config.hidden_size // heads) % 8 == 0
        and config.hidden_size // heads <= 256
    )
    return PACKED if has_flash and fits and precision in HALF else MASKED
