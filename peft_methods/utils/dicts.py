"""Nested dictionaries flattened to dotted names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested values: {'budget': {'epochs': 2}} -> {'budget.epochs': '2'}.

    Leaves out device and seed, which are reported separately.
    """
    found: dict[str, str] = {}
    for name, value in values.items():
        path = f"{prefix}{name}".removeprefix("recipe.")
        nested = (
            dict(enumerate(value))
            if isinstance(value, list) and value and isinstance(value[0], dict)
            else value
        )
        if isinstance(nested, dict):
            found |= flatten({str(key): one for key, one in nested.items()}, f"{path}.")
        elif name not in {"device", "seed"} or prefix.endswith("data."):
            found[path] = str(value)
    return found
