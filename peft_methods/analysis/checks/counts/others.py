"""Counts of methods that add vectors, blocks or tokens, or train a part of the model itself."""

from __future__ import annotations

import itertools

import numpy as np

from peft_methods.analysis.checks.counts.parts import (
    ANY,
    Numbers,
    Settings,
    bias_groups,
    groups,
    outer_linear,
    sums_of_subsets,
    vocabulary_of,
)
from peft_methods.models.architecture import Architecture
from peft_methods.models.layer_parts import LinearLayer

TOKENS = range(1, 513)
WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # of adapters in some layers only
NETWORKS = (64, 128, 256, 300, 512, 768, 800, 1024, 2048)  # hidden layers that compute a prefix
ANY_WIDTH = range(32, 2049)
MOST_WIDTHS = 1024  # of adapters in some number of the layers
MORE_ROWS = (*range(9), 16, 32, 64, 128)  # rows that tokens added to a vocabulary make


def _array(numbers: set[int]) -> Numbers:
    return np.array(sorted(numbers), dtype=np.int64)


def full_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return the encoder with or without a pooler; decoders also with a few more tokens."""
    hidden = architecture.hidden
    plain = architecture.encoder_parameters - architecture.pooler * (hidden * hidden + hidden)
    is_decoder = architecture.model_type in ROWS_ADDED and vocabulary_of(architecture)
    rows = MORE_ROWS if is_decoder else (0,)
    width = architecture.embedding_width
    return _array(
        {
            plain + pooler + matrices * more * width
            for pooler in ((0,) if is_decoder else (0, hidden * hidden + hidden))
            for more in rows
            for matrices in (1, 2)
        }
    )


ROWS_ADDED = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    *("gpt2", "opt", "phi", "phi3", "falcon", "t5"),
)


def head_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return nothing beside the head."""
    return _array({0})


def ia3_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return every set of targets, each scaled at its inputs or its outputs."""
    depth = architecture.distinct_layers
    sides = [
        {0, depth * sum(one.inputs for one in group), depth * sum(one.outputs for one in group)}
        for group in _targeted(architecture, settings)
    ]
    outer = [
        {0, inputs, outputs}
        for inputs, outputs in outer_linear(architecture)
        if not settings.is_usual
    ]
    return _array({sum(one) for one in itertools.product(*sides, *outer)} - {0})


def _targeted(
    architecture: Architecture, settings: Settings
) -> tuple[tuple[LinearLayer, ...], ...]:
    wanted = set(settings.targets)
    every = groups(architecture)
    if not wanted or wanted == {"all"}:
        return every
    chosen = [group for group in every if any(set(one.roles) & wanted for one in group)]
    return tuple(chosen) or every


def bitfit_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return every set of biases: those of some linear layers or norms, in all layers."""
    every = bias_groups(architecture)
    if settings.is_usual:
        return _array({architecture.encoder_biases} - {0})
    return _array(sums_of_subsets(every) - {0})


def adapter_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return one or two bottlenecks in each layer, of any width, with norms and biases or not."""
    hidden, depth = architecture.hidden, architecture.distinct_layers
    depth *= 1 + (architecture.model_type == "t5")

    def block(width: int, norm: int, bias: int, place: int) -> int:
        return place * (2 * hidden * width + bias * (width + hidden) + norm)

    choices = tuple(itertools.product((0, 2 * hidden), (0, 1), (1, 2)))
    if settings.is_usual:
        return _array({depth * block(width, *one) for width in WIDTHS for one in choices})
    found = {depth * block(width, *choice) for width in range(1, hidden + 1) for choice in choices}
    # One norm beside two bottlenecks, as in the placement of the first paper's later code.
    found |= {depth * (block(w, 0, 1, 2) + 2 * hidden) for w in range(1, hidden + 1)}
    for width, choice in itertools.product(WIDTHS, choices):
        found |= {some * block(width, *choice) for some in range(1, depth)}
    return _array(found)


def dropped_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return bottlenecks of any width, in any number of the layers, with norms and biases or not.

    Widths above 1,024 are those that divide the layers' width: each width in each number of layers
    would be millions of counts for a large model.
    """
    hidden, depth = architecture.hidden, architecture.adapted_layers
    divided = hidden // np.arange(1, 65)
    widths = np.unique(np.append(divided, np.arange(1, min(hidden, MOST_WIDTHS) + 1)))
    blocks = [
        place * (2 * hidden * widths + bias * (widths + hidden) + norm)
        for norm, bias, place in itertools.product((0, 2 * hidden), (0, 1), (1, 2))
    ]
    some = np.multiply.outer(np.arange(1, depth + 1), np.concatenate(blocks))
    return np.unique(some.astype(np.int64))


def prefix_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return keys and values of each token in each layer, themselves or computed by a network.

    An encoder-decoder may have them in up to three kinds of attention. The network's hidden layer
    may be of any width where the number of tokens is known, and is of a usual one otherwise: any
    width with any number of tokens would fit nearly every count.
    """
    hidden, vectors = architecture.hidden, _vectors(architecture)
    tokens = TOKENS if settings.virtual_tokens is None else (settings.virtual_tokens,)
    found = {some * vector for some in tokens for vector in vectors}
    if settings.is_usual:
        return _array({some * vector for some in tokens for vector in vectors if some % 5 == 0})
    is_known = settings.virtual_tokens is not None
    for inner in ANY_WIDTH if is_known else {*NETWORKS, hidden, hidden // 2}:
        for vector in vectors:
            # PEFT makes the network's inputs as wide as the keys, where these are narrower.
            for width in {hidden, vector // (2 * architecture.layers)}:
                network = (width + 1) * inner + (inner + 1) * vector
                found |= {network + some * width for some in tokens} | {network}
    return _array(found)


def prefix_limit(architecture: Architecture, settings: Settings = ANY) -> int:
    """Return the count from which a network of another width may compute the prefix."""
    least = min(ANY_WIDTH) if settings.virtual_tokens is None else max(ANY_WIDTH)
    return (architecture.hidden + 1) * least + (least + 1) * min(_vectors(architecture))


def _vectors(architecture: Architecture) -> set[int]:
    """Return the size of the keys and values of one token in all layers."""
    hidden, layers = architecture.hidden, architecture.layers
    key = next((one for one in architecture.linear_layers if "key" in one.roles), None)
    widths = {hidden}
    if key is not None:
        fused = (key.outputs - hidden) // 2 if "query" in key.roles else key.outputs
        widths.add(fused)
    kinds = (1, 2, 3) if architecture.model_type == "t5" else (1,)
    return {2 * layers * width * kind for width in widths for kind in kinds if width > 0}


def prompt_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return an embedding for each token; an encoder-decoder may have some for either part."""
    tokens = range(1, 1001) if settings.virtual_tokens is None else (settings.virtual_tokens,)
    if settings.is_usual and settings.virtual_tokens is None:
        tokens = range(5, 101, 5)
    parts = (1, 2) if architecture.model_type == "t5" else (1,)
    width = architecture.embedding_width
    return _array({some * part * width for some in tokens for part in parts})
