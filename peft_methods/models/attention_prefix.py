"""Keys and values of virtual tokens, which attention reads before those of each text.

transformers' models take them from a cache: by the number of the layer, so that compiled code
differs between layers, and once in a row, however many texts are packed into it. Here they are an
attribute of each layer's attention. An implementation of attention places them before each text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

ATTRIBUTE = "keys_and_values_before_text"


class PrefixGiver(Protocol):
    """A part of a model that computes a prefix, and gives it to attention where this is set."""

    gives_prefix: bool
    attention: Iterable[nn.Module]

    @property
    def count(self) -> int:
        """The number of virtual tokens."""
        ...


def prefix_of(attention: nn.Module) -> Tensor | None:
    """Return the keys and the values of an attention's prefix (2, count, heads, size), if any."""
    found: Tensor | None = getattr(attention, ATTRIBUTE, None)
    return found


def give_prefix(attention: Iterable[nn.Module], pairs: Iterable[Tensor]) -> None:
    """Set the keys and values (2, count, heads, size) of each layer's attention."""
    for module, pair in zip(attention, pairs, strict=True):
        setattr(module, ATTRIBUTE, pair)


def prefix_giver(model: nn.Module) -> PrefixGiver | None:
    """Return the part of a model that has a prefix for its attention, or None."""
    found: Iterator[PrefixGiver] = (
        module  # type: ignore[misc]
        for module in model.modules()
        if hasattr(module, "gives_prefix")
    )
    return next(found, None)


@contextmanager
def prefix_in_attention(model: nn.Module) -> Iterator[int]:
    """Context manager: the model's prefix is in its attention. Yields its number of tokens, or 0.

    The tensors are kept until the end, since layers may be computed again in the backward pass.
    """
    if (giver := prefix_giver(model)) is None:
        yield 0
        return
    giver.gives_prefix = True
    try:
        yield giver.count
    finally:
        giver.gives_prefix = False
        for module in giver.attention:
            vars(module).pop(ATTRIBUTE, None)
