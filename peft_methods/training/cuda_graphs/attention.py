"""Attention implementations that a CUDA graph can capture.

The host never reads the attention mask. With flash attention no mask is stored at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peft_methods.models.packed_prefix import all_places, borders_with, with_prefix
from peft_methods.models.projection import transformers_model
from peft_methods.training.cuda_graphs.compat import mask_function
from peft_methods.training.precision import HALF

PACKED, MASKED = "peft_methods_packed", "peft_methods_masked"
LARGEST_HEAD = 256  # that flash attention computes


def disable_cudnn_attention() -> None:
    """Disable cuDNN's scaled dot-product attention, which builds a plan for each batch shape.

    When batches are padded to their longest row, nearly every batch has a new shape, and planning
    on the host takes longer than computing on the GPU. On an H100, a LoRA step of roberta-base
    took 109 ms with cuDNN attention and 45 ms without.
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
    """Return the sequence boundaries of the flattened batch: int32 of shape (2 rows + 1,).

    For each row the boundaries hold the start of its tokens and the start of its padding. Rows are
    padded at their end. The flash attention kernel (Dao 2023, arXiv:2307.08691) treats tokens and
    padding as separate sequences, so each token attends to the tokens of its row only. This has
    the effect of a mask without storing one.
    """
    starts = torch.arange(batch_size, device=device, dtype=torch.int32) * q_length
    lengths = (
        torch.full_like(starts, q_length)
        if attention_mask is None
        else attention_mask.sum(1, dtype=torch.int32)
    )
    whole = torch.full((1,), batch_size * q_length, device=device, dtype=torch.int32)
    return torch.cat([torch.stack([starts, starts + lengths], dim=1).flatten(), whole])


def packed_attention(  # noqa: PLR0917  # transformers passes them by position
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute flash attention: (rows, heads, tokens, size) -> (rows, tokens, heads, size).

    `attention_mask` holds the sequence boundaries returned by `row_borders`.
    """
    return flash_attention(
        query, key, value, attention_mask, query.shape[2], dropout=dropout, scaling=scaling
    )


def flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    borders: torch.Tensor,
    longest: int,
    *,
    is_causal: bool = False,
    window: int | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    prefix: torch.Tensor | None = None,
) -> tuple[torch.Tensor, None]:
    """Attend within sequences of at most `longest` tokens, between these borders of all tokens.

    (rows, heads, tokens, size) -> (rows, tokens, heads, size). Keys and values may have fewer heads
    than queries. A token sees at most `window` tokens: itself and those before it, or also as many
    after it if attention is not causal. `prefix` has keys and values (2, count, heads, size) that
    come before those of each sequence: the kernel aligns the ends of queries and keys, so a token
    still sees those before it.
    """
    rows, heads, tokens, size = query.shape
    dtype = query.dtype if query.dtype in HALF.values() else torch.get_autocast_dtype("cuda")
    q, k, v = (
        x.transpose(1, 2).reshape(rows * tokens, x.shape[1], size).to(dtype)
        for x in (query, key, value)
    )
    of_keys, longest_keys = borders, longest
    if prefix is not None:
        count = prefix.shape[1]
        places = all_places(borders, rows * tokens, count)
        k, v = (with_prefix(x, own, places) for x, own in zip((k, v), prefix, strict=True))
        of_keys, longest_keys = borders_with(borders, count), longest + count
    reach = None if window is None else window - 1
    mixed = torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        borders,
        of_keys,
        longest,
        longest_keys,
        dropout,
        is_causal,
        False,
        scale=scaling,
        window_size_left=reach,
        window_size_right=0 if is_causal and window is not None else reach,
    )[0]
    return mixed.view(rows, tokens, heads, size), None


def sdpa_mask(*arguments: Any, **options: Any) -> torch.Tensor:
    """Return transformers' SDPA mask, even if no row is padded and even if it is only causal.

    transformers omits the mask when nothing is padded. To find out, the host would have to wait for
    the device.
    """
    from transformers.masking_utils import sdpa_mask

    always = {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    mask: torch.Tensor | None = sdpa_mask(*arguments, **{**options, **always})
    assert mask is not None, "nothing is skipped"
    return mask


def eager_mask(*arguments: Any, dtype: torch.dtype = torch.float32, **options: Any) -> torch.Tensor:
    """Return transformers' mask for eager attention: 0 or the lowest finite number.

    It is created on the device, without copying a number from the host.
    """
    mask = sdpa_mask(*arguments, **options)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def register_attention() -> None:
    """Make the capturable implementations known to transformers, where they stay."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, row_borders)
    AttentionInterface.register(MASKED, sdpa_attention_forward)
    AttentionMaskInterface.register(MASKED, sdpa_mask)


@contextmanager
def capturable_attention(model: nn.Module, precision: str) -> Iterator[str]:
    """Context manager: use a capturable attention implementation, and yield its name.

    The name is PACKED or MASKED if the model's class lets callers choose the attention
    implementation, else "own".
    """
    if (name := _choose_attention(model, precision)) is None:
        with _model_attention(model):
            yield "own"
        return
    register_attention()
    config: Any = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield name
    finally:
        config._attn_implementation = before


@contextmanager
def _model_attention(model: nn.Module) -> Iterator[None]:
    """Context manager: keep the model's attention, but create its inputs on the model's device.

    MPNet needs this: its attention adds a bias to the scores. The mask is created on the device.
    So is every tensor created without a device argument (MPNet's positions), because a captured
    step cannot copy tensors from the host.
    """
    config: Any = model.config
    kind = config._attn_implementation
    function = eager_mask if kind == "eager" else sdpa_mask
    with mask_function(kind, function), next(model.parameters()).device:
        yield


def _choose_attention(model: nn.Module, precision: str) -> str | None:
    """Return PACKED or MASKED, or None if the model's class has its attention built in."""
    base = transformers_model(model)
    if not getattr(base, "_supports_attention_backend", False):
        return None
    return PACKED if has_flash_attention(base, precision) else MASKED


def has_flash_attention(model: Any, precision: str) -> bool:
    """Whether the model's layers take another attention, and flash attention can compute it."""
    if not getattr(model, "_supports_attention_backend", False):
        return False
    device, size = next(model.parameters()).device, _head_size(model.config)
    is_known = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return is_known and size % 8 == 0 and 0 < size <= LARGEST_HEAD and precision in HALF


def _head_size(config: Any) -> int:
    """Return the size of an attention head; 0 if the config does not tell it."""
    heads = getattr(config, "num_attention_heads", None)
    size: int | None = getattr(config, "head_dim", None)
    return size or (config.hidden_size // heads if heads else 0)
