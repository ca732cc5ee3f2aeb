"""A cache of keys and values whose rows (slots) are at positions of their own, and its attention.

`StaticCache` of transformers writes all rows at one position, so a batch ends with its longest
text. Its continuous batching computes in a thread of its own, where the autocast of the caller is
off, and takes most of the free memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from peft_methods.models.attention_registry import registered

NAME = "peft_methods_slots"  # of the attention. It has no mask function, so no mask is made.


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: (slots, heads, length, size), in the dtypes that they have."""

    is_sliding = False

    def __init__(self, slots: int, length: int) -> None:
        super().__init__()
        self.slots, self.length = slots, length
        self.first = self.window = 0
        self.places: tuple[Tensor, Tensor] | None = None  # of the tokens to store: slots, positions

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the cache like the first keys and values."""
        self.keys, self.values = self._empty_like(key_states), self._empty_like(value_states)
        self.is_initialized = True

    def _empty_like(self, states: Tensor) -> Tensor:
        return states.new_zeros((self.slots, states.shape[1], self.length, states.shape[3]))

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values (rows, heads, tokens, size), and return those to attend to.

        Prompts are stored from the start of their slots and attend to themselves alone. Later
        tokens attend to the first `window` places of their slots.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, tokens = key_states.shape[0], key_states.shape[2]
        if self.places is None:
            slots = slice(self.first, self.first + rows)
            for states, new in ((self.keys, key_states), (self.values, value_states)):
                states[slots, :, :tokens] = new
                states[slots, :, tokens:] = 0  # nothing of the last text, were it not finite
            return key_states, value_states
        each, positions = self.places
        self.keys[each, :, positions] = key_states[:, :, 0]
        self.values[each, :, positions] = value_states[:, :, 0]
        return self.keys[:rows, :, : self.window], self.values[:rows, :, : self.window]

    def move(self, slots: Tensor, length: int) -> None:
        """Move the first `length` places of these slots to the first slots."""
        for states in (self.keys, self.values):
            states[: len(slots), :, :length] = states[slots, :, :length]

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Return what a mask would cover. None is made."""
        return self.window, 0

    def get_seq_length(self, *_: Any) -> int:
        """Return 0: positions are always given."""
        return 0

    def get_max_length(self) -> int:
        """Return the places of a slot."""
        return self.length

    get_max_cache_shape = get_max_length  # its name before transformers 5.16


class SlotCache(Cache):
    """The cache of a model's layers."""

    layers: list[SlotLayer]

    def __init__(self, layers: int, slots: int, length: int) -> None:
        super().__init__(layers=[SlotLayer(slots, length) for _ in range(layers)])

    def write_prompts(self, first: int) -> None:
        """Store what comes next as prompts, from this slot on."""
        for layer in self.layers:
            layer.first, layer.places = first, None

    def write_tokens(self, positions: Tensor, window: int) -> None:
        """Store what comes next as one token a slot at these positions (rows)."""
        slots = torch.arange(len(positions), device=positions.device)
        for layer in self.layers:
            layer.places, layer.window = (slots, positions), window

    def move(self, slots: Sequence[int], length: int) -> None:
        """Move the first `length` places of these slots to the first slots."""
        index = torch.tensor(slots, device=self.layers[0].keys.device)
        for layer in self.layers:
            layer.move(index, length)


def slots_attention(  # noqa: PLR0917  # transformers passes them by position
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Any]:
    """Compute attention: (rows, heads, tokens, size) -> (rows, tokens, heads, size).

    That of prompts is causal and has no mask. The one token of a slot is computed
    without repeating keys and values for the heads that share them: these heads take the place of
    the tokens.
    """
    rows, heads, tokens, size = query.shape
    if attention_mask is None or tokens > 1 or options.get("position_bias") is not None:
        mixed: tuple[Tensor, Any] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
        return mixed
    shared = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    found = F.scaled_dot_product_attention(
        shared, key, value, attn_mask=attention_mask, scale=scaling
    )
    return found.reshape(rows, 1, heads, value.shape[-1]), None


@contextmanager
def attending_to_slots(config: Any) -> Iterator[None]:
    """Context manager: a model of this config computes attention with `slots_attention`."""
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        with registered(NAME, slots_attention):
            yield
    finally:
        config._attn_implementation = before
