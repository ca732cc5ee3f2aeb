"""Every use of a private name of torch or transformers by the cuda_graphs engine, in one place.

Each function names the versions that it was written for. When one of these libraries is updated,
read this file first. (`attention.py` also calls the operator `_flash_attention_forward` and reads
the model's `_supports_attention_backend` and `_attn_implementation`; torch 2.11 to 2.13,
transformers 5.17.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def undo_compile(layer: nn.Module) -> None:
    """Undo `layer.compile()`, which has no public inverse. torch 2.11 to 2.13."""
    layer._compiled_call_impl = None


def step_did_not_count(schedule: Any) -> None:
    """Take back the step that the schedule will make next: it stays at the present rate.

    There is no public way to step back. torch 2.11 to 2.13.
    """
    schedule.last_epoch -= 1


@contextmanager
def mask_function(kind: str, function: Callable[..., Any]) -> Iterator[None]:
    """Context manager: have transformers create masks for this kind of attention with `function`.

    Its mapping has a local layer over a global one, which is restored.
    transformers 5.17.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    local = ALL_MASK_ATTENTION_FUNCTIONS._local_mapping
    before = dict(local)
    ALL_MASK_ATTENTION_FUNCTIONS[kind] = function
    try:
        yield
    finally:
        local.clear()
        local.update(before)
