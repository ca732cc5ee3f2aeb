"""Counts of LoRA and its nearest kin: every set of targets, rank, choice of biases and layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from peft_methods.analysis.checks.counts.parts import (
    ANY,
    Numbers,
    Settings,
    all_biases,
    groups,
    outer_linear,
    subsets,
    total,
    vocabulary_of,
)
from peft_methods.models.architecture import Architecture
from peft_methods.models.layer_parts import LinearLayer

RANKS = range(1, 513)
# Ranks beside a choice of biases, and beside a choice of layers.
USUAL = (
    *(*range(1, 17), 20, 24, 28, 30, 32, 36, 40, 48, 50, 56, 60, 64, 72, 80, 96, 100, 128, 160),
    *(192, 200, 256, 320, 384, 512),
)
COMMON = (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 64, 128, 256)
BIASES = ("none", "lora_only", "all")


def lora_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return every rank on every set of targets, in all layers or some, with what `bias` trains."""
    return _counts(architecture, settings, with_lengths=False)


def dora_counts(architecture: Architecture, settings: Settings = ANY) -> Numbers:
    """Return LoRA's counts, with a length for each output."""
    return _counts(architecture, settings, with_lengths=True)


def _counts(architecture: Architecture, settings: Settings, *, with_lengths: bool) -> Numbers:
    depth = architecture.distinct_layers
    biases = (settings.bias,) if settings.bias in BIASES else BIASES
    if settings.is_usual:
        biases = (settings.bias,) if settings.bias in BIASES else BIASES[:1]
    outer = {(0, 0)} if settings.is_usual else _outer(architecture, with_lengths=with_lengths)
    inner = {(0, 0)} if settings.is_usual else _embeddings(architecture, with_lengths=with_lengths)
    chosen = {
        (
            total(some, lambda one: one.inputs + one.outputs),
            with_lengths * total(some, lambda one: one.outputs),
            total(some, lambda one: one.biases),
            _matches_outer(architecture, some),
        )
        for some in subsets(architecture, settings.targets)
    }
    # Sums of sides, lengths, and biases of the targets, in all layers and outside them; and whether
    # one name or "all-linear" means these targets.
    whole = np.array(
        sorted(
            (depth * sides + more, depth * lengths + more_lengths, depth * own + own_outer, named)
            for sides, lengths, own, is_whole in chosen
            for more, more_lengths in outer
            for own_outer in {0, architecture.hidden * (more > 0)}
            for named in {is_whole or (more, more_lengths) in inner}
        ),
        dtype=np.int64,
    )
    found = []
    if "none" in biases:
        ranks = COMMON if settings.is_usual else RANKS
        found.append(_times(_ranks(settings, ranks), whole[:, 0], whole[:, 1]))
    if "none" in biases and not settings.is_usual:
        # Some layers only.
        own = np.array(sorted({one[:2] for one in chosen}), dtype=np.int64)
        some = _times(_ranks(settings, COMMON), own[:, 0], own[:, 1])
        parted = _times(range(1, depth), some, np.zeros_like(some))
        found.append(
            np.setdiff1d(
                parted, _of_other_targets(architecture, settings, with_lengths=with_lengths)
            )
        )
    usual = _ranks(settings, USUAL)
    whole = whole[whole[:, 3] == 1]
    if "lora_only" in biases:
        found.append(_times(usual, whole[:, 0], whole[:, 1] + whole[:, 2]))
    if "all" in biases:
        for every in all_biases(architecture):
            found.append(_times(usual, whole[:, 0], whole[:, 1] + every))
    return np.unique(np.concatenate(found))


def _of_other_targets(
    architecture: Architecture, settings: Settings, *, with_lengths: bool
) -> Numbers:
    """Return the counts of other targets in all layers, where rank and targets are named.

    Such a count shows that the targets are not those named, rather than that layers were left out.
    """
    if settings.rank is None or not settings.targets or settings.some_layers:
        return np.zeros(0, dtype=np.int64)
    others = replace(settings, targets=(), bias="none", is_usual=True)
    return _counts(architecture, others, with_lengths=with_lengths)


def _matches_outer(architecture: Architecture, chosen: Sequence[LinearLayer]) -> bool:
    """Whether the name that takes these layers takes layers outside the layers too.

    That is "dense", which takes all of that name, or "all-linear". Seldom layers outside are named
    by themselves: that is possible without biases only, since biases of each choice beside it
    would fit nearly every count.
    """
    every = groups(architecture)
    dense = {group[0].name for group in every if group[0].name.endswith("dense")}
    names = {one.name for one in chosen}
    return dense <= names if dense else len(names) == len(every)


def _times(numbers: Sequence[int], units: Numbers, fixed: Numbers) -> Numbers:
    """Return each unit times each number, with its fixed part, each once."""
    return np.unique(np.multiply.outer(np.array(numbers, dtype=np.int64), units) + fixed)


def _outer(architecture: Architecture, *, with_lengths: bool) -> set[tuple[int, int]]:
    """Return (inputs + outputs, lengths) of every choice of layers outside the layers."""
    found = {(0, 0)}
    for inputs, outputs in outer_linear(architecture):
        found |= {(a + inputs + outputs, b + with_lengths * outputs) for a, b in found}
    return found | _embeddings(architecture, with_lengths=with_lengths)


def _embeddings(architecture: Architecture, *, with_lengths: bool) -> set[tuple[int, int]]:
    """Return nothing, the embeddings or the projection to the vocabulary, and both of them."""
    found = {(0, 0)}
    if rows := vocabulary_of(architecture):
        width = architecture.embedding_width
        for some in (1, 2):
            found.add((some * (rows + width), with_lengths * some * rows))
    return found


def _ranks(settings: Settings, otherwise: Sequence[int]) -> Sequence[int]:
    return otherwise if settings.rank is None else (settings.rank,)
