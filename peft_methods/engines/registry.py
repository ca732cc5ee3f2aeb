"""The engines by name. An engine is one module, which is imported when it is needed."""

from __future__ import annotations

import importlib
from types import ModuleType

IS_REGISTRY = True  # one more engine changes no fingerprint: see `code_fingerprint`
MODULES = {
    "stock": "peft_methods.engines.stock",
    "graphed": "peft_methods.engines.graphed",
}


def engine_of(name: str) -> ModuleType:
    """Import the engine of this name."""
    return importlib.import_module(MODULES[name])
