"""The comparison of many methods, from the figures that are stored with the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft_methods.methods import METHODS
from reference_docs.markdown import codes, table

FIGURES = Path(__file__).parents[1] / "figures" / "many-methods.json"
HEADINGS = (
    *("family", "method", "accuracy, %", "95 % interval", "trainable (method + head)"),
    *("train time, s", "peak memory, MiB", "engine"),
)


def figures(recipe: str) -> dict[str, Any]:
    """Return a recipe's stored figures: `rows` by method, and what was `skipped` and `not_run`."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))[recipe]
    return found


def encoder() -> str:
    """Format the table of the encoder's methods."""
    return _formatted("imdb_mpnet")


def decoder() -> str:
    """Format the table of the decoder's methods."""
    return _formatted("imdb_decoder")


def not_run() -> str:
    """Name the methods that were not run on the encoder, and those that cannot be."""
    found = figures("imdb_mpnet")
    why = "\n".join(f"- {message}" for message in found["skipped"].values())
    return (
        f"Not run, for lack of time ({len(found['not_run'])}): {codes(found['not_run'])}.\n\n"
        f"Skipped:\n\n{why}"
    )


def _formatted(recipe: str) -> str:
    rows = figures(recipe)["rows"]
    names = sorted(rows, key=lambda name: METHODS[name].info.rank)
    return table(HEADINGS, [_row(name, rows[name]) for name in names])


def _row(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    info = METHODS[name].info
    low, high = row["interval"]
    return (
        info.family.replace("_", " "),
        info.title,
        f"{100 * row['accuracy']:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{row['method_parameters']:,} + {row['head_parameters']:,}",
        f"{row['train_seconds']:.1f}",
        f"{row['peak_memory_bytes'] / 2**20:,.0f}",
        f"`{row['engine']}`",
    )
