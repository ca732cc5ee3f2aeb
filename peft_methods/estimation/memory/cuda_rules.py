"""What torch computes differently on a GPU, imitated for tensors of another device.

A GPU's program is run on tensors without data, whose device is the host's: torch without CUDA
refuses tensors of a GPU, even without data. Four things depend on the device, and are imitated
here: which operations autocast runs in fp32, dropout as one operation with a mask of bytes, the
kernels of attention, and flags that libraries ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

AMPERE = (8, 0)  # the compute capability of the first GPUs with flash attention in torch
HALVES = (torch.bfloat16, torch.float16)
# https://docs.pytorch.org/docs/stable/amp.html: CUDA operations that autocast to float32
_WORDS = """
pow __pow__ __rpow__ __rtruediv__ acos asin cosh sinh tan cumprod cumsum dist erfinv exp expm1 log
log10 log1p log2 norm prod reciprocal rsqrt softmax log_softmax sum renorm group_norm layer_norm
binary_cross_entropy_with_logits cosine_embedding_loss cosine_similarity cross_entropy kl_div
l1_loss mse_loss nll_loss normalize pdist smooth_l1_loss soft_margin_loss softmin softplus
triplet_margin_loss
"""
IN_FP32: frozenset[Any] = frozenset(
    [
        found
        for place in (torch, torch.Tensor, F)
        for name in _WORDS.split()
        if (found := getattr(place, name, None)) is not None
    ]
)


class CudaRules(TorchFunctionMode):
    """Runs torch's functions on tensors of the host as they run on a GPU.

    `capability` is the compute capability of the GPU, which decides the kernel of attention.
    """

    def __init__(self, capability: tuple[int, int] = AMPERE) -> None:
        super().__init__()
        self._capability = capability

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func is F.dropout:
            return _dropout(*args, **options)
        if func is F.scaled_dot_product_attention:
            return _attention(self._capability, *args, **options)
        if func in IN_FP32 and torch.is_autocast_enabled("cpu"):
            return func(*map(_in_fp32, args), **{k: _in_fp32(v) for k, v in options.items()})
        return func(*args, **options)


@contextmanager
def autocast_flags(dtype: torch.dtype | None) -> Iterator[None]:
    """Context manager: CUDA's autocast is said to be on, for libraries that ask.

    It changes no operation of tensors on the host. None leaves it off.
    """
    if dtype is None:
        yield
        return
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def _in_fp32(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in HALVES:
        return value.float()
    return value


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """Return dropout as a GPU computes it: one operation, which keeps a mask of bytes."""
    if not training or p == 0:
        return input
    return torch.native_dropout(input, p, True)[0]


def _attention(  # noqa: PLR0917  # torch's own arguments
    capability: tuple[int, int],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Return attention by the kernel that torch chooses on a GPU.

    Without a mask and in half precision it is the flash kernel from Ampere on, else the
    memory-efficient one. Older GPUs have this one for fp32 and fp16; in bf16 they compute attention
    by products of whole matrices, as all GPUs do in fp32 for heads that share keys. A mask of truth
    values becomes one of scores first. cuDNN's kernel is off in all runs. Source:
    aten/src/ATen/native/transformers/cuda/sdp_utils.cpp.
    """
    if torch.is_autocast_enabled("cpu"):
        half = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(half), key.to(half), value.to(half)
        if attn_mask is not None and attn_mask.dtype != torch.bool:
            attn_mask = attn_mask.to(half)
    shared = enable_gqa and key.shape[1] != query.shape[1]
    is_old = capability < AMPERE
    has_flash = query.dtype in HALVES and query.shape[-1] <= 256 and not is_old
    has_kernel = not shared or (attn_mask is None and has_flash)  # of shared keys: flash alone
    if not has_kernel or (is_old and query.dtype == torch.bfloat16):
        return _by_products(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    if attn_mask is None and has_flash:
        found: tuple[torch.Tensor, ...] = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )
        return found[0]
    if attn_mask is not None:
        attn_mask = _scores(attn_mask, query.dtype)
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    kept = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, value))
    found = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, kept, dropout_p, is_causal, scale=scale
    )
    return found[0]


def _by_products(  # noqa: PLR0917  # torch's own arguments
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor:
    """Return attention by products; the scores of all pairs of tokens are stored.

    Source: `_scaled_dot_product_attention_math` in aten/src/ATen/native/transformers/attention.cpp.
    """
    if enable_gqa and key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    if is_causal:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    root = (query.shape[-1] ** -0.5 if scale is None else scale) ** 0.5
    scores = (query * root) @ (key.transpose(-2, -1) * root)
    if mask is not None:
        scores = scores + (_scores(mask, query.dtype) if mask.dtype == torch.bool else mask)
    weights = torch.ops.aten._softmax(scores, -1, False)
    return _dropout(weights, dropout, dropout > 0) @ value


def _scores(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask of truth values as one of scores; its last size is padded to a multiple of 16.

    The kernel needs aligned rows.
    """
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))
    if (missing := -mask.shape[-1] % 16) != 0:
        mask = F.pad(mask, (0, missing))[..., : mask.shape[-1]]
    return mask
