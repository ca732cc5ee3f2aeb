"""Virtual tokens of a model whose rows are packed texts: each text has them before its own.

transformers' models read keys and values of a prefix from a cache: by the number of the layer, so
that compiled code differs between layers, and once in a row, however many texts are packed into it.
Here they are an attribute of each layer's attention, which places them before each text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

ATTRIBUTE = "keys_and_values_before_text"


class HasVirtualTokens(Protocol):
    """The part of a model that has virtual tokens.

    While `borders` (texts + 1,) of the texts in a row are set, it inserts the tokens into the row
    before each text (`are_in_rows`), or gives their keys and values to the attention.
    """

    borders: Tensor | None
    are_in_rows: bool
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


def virtual_tokens_of(model: nn.Module) -> HasVirtualTokens | None:
    """Return the part of a model that has virtual tokens, or None."""
    found: Iterator[HasVirtualTokens] = (
        module  # type: ignore[misc]
        for module in model.modules()
        if hasattr(module, "are_in_rows")
    )
    return next(found, None)


@contextmanager
def packed_virtual_tokens(model: nn.Module) -> Iterator[HasVirtualTokens | None]:
    """Context manager: yields the virtual tokens, whose borders may be set until it ends.

    Until then the attention keeps a prefix, since the backward pass may compute layers again.
    """
    tokens = virtual_tokens_of(model)
    try:
        yield tokens
    finally:
        if tokens is not None:
            tokens.borders = None
            for module in tokens.attention:
                vars(module).pop(ATTRIBUTE, None)
