"""A decoder's rows packed into one row of tokens, and its frozen weights in half precision.

This is how the cuda_graphs engine trains decoders, on tensors without data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from peft_methods.data.token_rows import TokenRows
from peft_methods.methods.base import Method
from peft_methods.models.attention_registry import registered
from peft_methods.models.packed_virtual_tokens import packed_virtual_tokens, prefix_of
from peft_methods.models.projection import transformers_model
from peft_methods.models.quantization import is_quantized
from peft_methods.recipes.schema import ModelSpec
from peft_methods.tasks.collate import BORDERS, Collator
from peft_methods.training.cuda_graphs.attention import flash_attention
from peft_methods.training.cuda_graphs.token_batches import TokenCollator
from peft_methods.training.precision import HALF

NAME = "peft_methods_packed_without_data"


def packed_batch(collate: Collator, rows: TokenRows, size: int) -> dict[str, Any]:
    """Return `size` rows as a packed batch: those there are, again and again."""
    again = rows.select([n % len(rows) for n in range(size)])
    whole = TokenCollator(collate, again, [range(size)], size=size, pooled=-1)
    return whole([again[n] for n in range(size)])


@contextmanager
def attending_within_rows(
    model: nn.Module, batch: Mapping[str, Any], longest: int
) -> Iterator[None]:
    """Context manager: the model attends within the rows that were packed, by the flash kernel."""
    base: Any = transformers_model(model)
    before = base.config._attn_implementation
    borders = batch[BORDERS]

    def attend(  # noqa: PLR0917  # transformers passes them by position
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        return flash_attention(
            query,
            key,
            value,
            borders,
            longest,
            is_causal=bool(getattr(module, "is_causal", True)),
            window=sliding_window,
            dropout=dropout,
            scaling=scaling,
            prefix=prefix_of(module),
        )

    with packed_virtual_tokens(model) as virtual:
        if virtual is not None:
            virtual.borders = borders
        base.config._attn_implementation = NAME
        try:
            with registered(NAME, attend, lambda *_, **__: borders):
                yield
        finally:
            base.config._attn_implementation = before


def hold_in_half(
    model: nn.Module,
    method: Method,
    precision: str,
    mode: FakeTensorMode,
    *,
    embeddings: bool,
) -> None:
    """Hold frozen linear weights in the precision of products, and `embeddings` too.

    Embeddings are held so where 16 bits represent their values, as in most published decoders. See
    `half_frozen`.
    """
    if precision not in HALF:
        return
    half = HALF[precision]
    made: dict[int, nn.Parameter] = {}
    with mode:
        for path, module in model.named_modules():
            is_read = method.info.reads_weights and path.endswith(".base_layer")
            is_held = type(module) is nn.Linear and not is_read
            if not is_held and not (embeddings and type(module) is nn.Embedding):
                continue
            for name, parameter in list(module._parameters.items()):
                if parameter is None or parameter.requires_grad or is_quantized(parameter):
                    continue
                if id(parameter) not in made:
                    empty = torch.empty(parameter.shape, dtype=half)
                    made[id(parameter)] = nn.Parameter(empty, requires_grad=False)
                module._parameters[name] = made[id(parameter)]
            if type(module) is nn.Embedding and module.weight.dtype == half:
                module.register_forward_hook(lambda _, __, output: output.float())


def is_in_16_bits(spec: ModelSpec, published: torch.dtype | None) -> bool:
    """Whether 16 bits represent all weights. Random ones are rounded so.

    `published` is the type that the config says; the decoders of presets, which say none, were
    published in 16 bits.
    """
    return spec.weights == "random" or published is None or published in HALF.values()
