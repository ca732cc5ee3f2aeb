"""Names of bundled models and data sets: `bundled:NAME`."""

from __future__ import annotations

PREFIX = "bundled:"
OLD_PREFIX = "embedded:"  # of version 0.1, still accepted


def bundled_name(source: str) -> str:
    """Return a source with the current prefix if it has the old one."""
    if source.startswith(OLD_PREFIX):
        return PREFIX + source.removeprefix(OLD_PREFIX)
    return source
