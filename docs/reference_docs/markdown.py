"""Markdown tables and the formatting of values in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table. A bar within a cell is escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def code(value: object) -> str:
    """Format a value as code: 3 -> `3`."""
    return f"`{value}`"


def codes(values: Iterable[object]) -> str:
    """Format several values as code, separated by commas."""
    return ", ".join(code(value) for value in values)


def paragraphs(docstring: str | None) -> str:
    """Return a docstring as Markdown."""
    import inspect

    return inspect.cleandoc(docstring or "")
