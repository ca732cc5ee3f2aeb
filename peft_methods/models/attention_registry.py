"""Implementations of attention: which a model needs, and some known by a name for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def attention_options(config: Any) -> dict[str, str]:
    """Return the options with which a model is made, so that its attention is its config's.

    transformers 5.17 computes attention with SDPA by default, which drops a cap of the scores
    (Gemma 2, VaultGemma, T5Gemma) without a word. Its eager attention has it.
    """
    parts = [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", ()))]
    is_capped = any(getattr(part, "attn_logit_softcapping", None) for part in parts)
    return {"attn_implementation": "eager"} if is_capped else {}


@contextmanager
def registered(
    name: str, attention: Callable[..., Any], mask: Callable[..., Any] | None = None
) -> Iterator[None]:
    """Context manager: models whose config has this name compute this attention.

    `mask` makes what they hand to it as the mask; without it they hand on what they are given.
    Nothing is left behind, since runs that follow in the same process are compared with this one.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    kinds = {AttentionInterface: attention, AttentionMaskInterface: mask}
    for kind, function in kinds.items():
        if function is not None:
            kind.register(name, function)
    try:
        yield
    finally:
        for kind in kinds:
            kind._global_mapping.pop(name, None)  # transformers 5.17 has no way to take one back
