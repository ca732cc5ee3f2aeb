"""The fine-tuning methods. A new one is one file in this package, or an entry point elsewhere."""

from __future__ import annotations

from peft_methods.methods.base import (
    TRAINED,
    ApplyContext,
    DefaultRate,
    Method,
    MethodInfo,
    ParamGroup,
)
from peft_methods.methods.registry import METHODS, Registry

# Adding a method changes no fingerprint: see `code_fingerprint`.
IS_REGISTRY = True

__all__ = [
    "METHODS",
    "TRAINED",
    "ApplyContext",
    "DefaultRate",
    "Method",
    "MethodInfo",
    "ParamGroup",
    "Registry",
]
