"""A pytest plugin and a Python API that compare fine-tuning methods: quality and real cost."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
IS_REGISTRY = True  # importing this package imports none of what it offers
__all__ = ["__version__", "compare", "estimate", "load_trained"]


def __dir__() -> list[str]:
    """List the names that are imported on demand too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import lazily: every pytest session loads the plugin, which must cost nothing."""
    if name == "compare":
        from peft_methods.api import compare

        return compare
    if name == "estimate":
        from peft_methods.api import estimate

        return estimate
    if name == "load_trained":
        from peft_methods.runs.export import load_trained

        return load_trained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
