"""Batches without padding, whose mask transformers leaves out: on tensors without data it cannot.

It would look at the values of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from peft_methods.models.attention_registry import registered
from peft_methods.models.projection import transformers_model

NAME = "peft_methods_without_padding"


@contextmanager
def without_padding(model: nn.Module) -> Iterator[None]:
    """Context manager: the model's masks hide nothing, and are left out as transformers would do.

    Models with another attention than SDPA, and encoder-decoders, keep their masks.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    config: Any = transformers_model(model).config
    if config._attn_implementation != "sdpa" or config.is_encoder_decoder:
        yield
        return
    config._attn_implementation = NAME
    try:
        with registered(NAME, sdpa_attention_forward, _mask):
            yield
    finally:
        config._attn_implementation = "sdpa"


def _mask(**given: Any) -> Any:
    """Return None where a mask without padding says no more than the kernel knows.

    That is so unless rows are longer than a window, or follow keys of a prefix.
    """
    from transformers.masking_utils import sdpa_mask

    keys, window = given["kv_length"], given.get("local_size")
    queries = given["q_length"] if "q_length" in given else len(given["cache_position"])
    may_skip = given.get("allow_is_causal_skip", True) or given.get("allow_is_bidirectional_skip")
    is_known = queries == keys and (window is None or keys < window)
    return None if may_skip and is_known else sdpa_mask(**given)
