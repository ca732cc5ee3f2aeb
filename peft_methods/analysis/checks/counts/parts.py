"""The parts of a model that methods choose among: groups of linear layers, biases, outer layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peft_methods.analysis.checks.counts.architectures import model_of
from peft_methods.models.architecture import Architecture
from peft_methods.models.layer_parts import LinearLayer

Numbers = NDArray[np.int64]
MPNET_BUCKETS, T5_BUCKETS = 32, 64  # T5: both of its stacks


@dataclass(frozen=True)
class Settings:
    """What is known of a method's settings. None or empty: not known, so anything is possible.

    `targets` are roles of linear layers, or "all" for every linear layer. `is_usual` leaves out
    what is seldom seen: unusual ranks and widths, some layers only, layers outside the layers.
    `some_layers` is whether the row's name speaks of layers.
    """

    rank: int | None = None
    targets: tuple[str, ...] = ()
    bias: str | None = None
    virtual_tokens: int | None = None
    is_usual: bool = False
    some_layers: bool = False


ANY = Settings()


def vocabulary_of(architecture: Architecture) -> int:
    """Return the rows of the embeddings; 0 for a model that is not known."""
    model = model_of(architecture)
    return 0 if model is None else model.vocabulary


def groups(architecture: Architecture) -> tuple[tuple[LinearLayer, ...], ...]:
    """Return the linear layers of one layer; those with one name are chosen together (T5's)."""
    by_name: dict[str, list[LinearLayer]] = {}
    for one in architecture.linear_layers:
        by_name.setdefault(one.name, []).append(one)
    return tuple(map(tuple, by_name.values()))


def outer_linear(architecture: Architecture) -> tuple[tuple[int, int], ...]:
    """Return (inputs, outputs) of linear layers outside the layers, which targets may match.

    PEFT's "all-linear" and "dense" take a pooler, or the dense layer of a head. Some embeddings
    are narrower than the layers, and a linear layer widens them.
    """
    hidden, width = architecture.hidden, architecture.embedding_width
    found: tuple[tuple[int, int], ...] = () if width == hidden else ((width, hidden),)
    if architecture.model_type == "opt" and found:
        found = (*found, (hidden, width))
    if architecture.model_type not in UNPOOLED:
        found = (*found, (hidden, hidden))
    return found


UNPOOLED = (
    *("gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"),
    *("gemma3_text", "smollm3", "phi", "phi3", "gpt_neox", "falcon"),
)


def subsets(
    architecture: Architecture, targets: Sequence[str] = ()
) -> Iterator[tuple[LinearLayer, ...]]:
    """Yield every set of linear layers of one layer, or those that named targets mean."""
    every = groups(architecture)
    if targets:
        roles = {role for group in every for one in group for role in one.roles}
        if set(targets) == {"all"}:
            yield tuple(itertools.chain.from_iterable(every))
            return
        if set(targets) <= roles:
            chosen = [
                group for group in every if any(set(one.roles) & set(targets) for one in group)
            ]
            yield tuple(itertools.chain.from_iterable(chosen))
            return
    for taken in itertools.product((False, True), repeat=len(every)):
        if any(taken):
            yield tuple(itertools.chain.from_iterable(itertools.compress(every, taken)))


def sums_of_subsets(numbers: Sequence[int]) -> set[int]:
    """Return the sum of every subset, the empty one included."""
    found = {0}
    for number in numbers:
        found |= {one + number for one in found}
    return found


def bias_groups(architecture: Architecture) -> tuple[int, ...]:
    """Return the sizes of the groups of biases that may be trained alone, in all layers at once."""
    depth, hidden = architecture.distinct_layers, architecture.hidden
    linear = (depth * sum(one.biases for one in group) for group in groups(architecture))
    norms = architecture.sizes.norm_biases
    each = (
        [depth * hidden] * (norms // hidden) if hidden and norms % hidden == 0 else [depth * norms]
    )
    if not architecture.encoder_biases:
        return ()
    pooler = hidden * (architecture.model_type not in UNPOOLED)
    sizes = (*linear, *each, architecture.sizes.outer_biases, pooler)
    return tuple(size for size in sizes if size)


def all_biases(architecture: Architecture) -> set[int]:
    """Return the numbers that bias="all" trains outside the head: pooler or not.

    PEFT goes by the name, which tables of relative positions share. Its newer versions leave out
    the biases of query and value in DeBERTa's first version, which are named otherwise.
    """
    hidden = architecture.hidden
    plain = architecture.encoder_biases - architecture.pooler * hidden
    if architecture.model_type == "deberta":
        named = plain - 2 * architecture.distinct_layers * hidden
        return {some + pooler for some in (plain, named) for pooler in (0, hidden)}
    tables = {
        "mpnet": MPNET_BUCKETS * (hidden // 64),
        "t5": T5_BUCKETS * (architecture.linear_layers[0].outputs // 64 if hidden else 0),
    }.get(architecture.model_type, 0)
    return {plain, plain + hidden, plain + tables, plain + tables + hidden}


def total(chosen: Sequence[LinearLayer], of: Callable[[LinearLayer], int]) -> int:
    """Return the sum of a size over linear layers."""
    return sum(map(of, chosen))
