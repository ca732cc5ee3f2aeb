"""Whether a model can read the rows together with a method's virtual tokens."""

from __future__ import annotations

from peft_methods.methods.base import Method


def too_long(longest: int | None, max_length: int, method: Method) -> str | None:
    """Return why rows and virtual tokens are too long for a model, or None.

    `longest` is the number of tokens that the model reads at most, None without a limit.
    """
    added = method.virtual_tokens
    if added == 0 or longest is None or max_length + added <= longest:
        return None
    problem = f"{method.title} adds {added} tokens to each row, and this model reads at most"
    if added >= longest:
        return f"{problem} {longest} in all: use fewer virtual tokens (methods.{method.name})"
    return f"{problem} {longest}: set data.max_length = {longest - added} or less"
