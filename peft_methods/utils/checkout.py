"""Where this package is imported from: a clone of its repository, or an installed package."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def clone() -> Path | None:
    """Return the root of the clone that this package is imported from; None if it is installed."""
    parts = (ROOT / "pyproject.toml", ROOT / "benchmarks" / "test_finetune.py")
    return ROOT if all(part.is_file() for part in parts) else None
