"""Trainable parameter counts that a method can have on a known model.

Any rank, set of targets or width is possible, so a count that fits none of them is a mistake. The
package `counts` has the models, their heads, and what libraries build.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from peft_methods.analysis.checks.counts import architectures as models
from peft_methods.analysis.checks.counts.heads import (
    DENSE_HEADS,
    HeadKind,
    HeadSize,
    head_of,
    heads,
    pooler_size,
)
from peft_methods.analysis.checks.counts.parts import ANY, Settings, vocabulary_of
from peft_methods.analysis.checks.counts.solving import Verdict, verdict_on
from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from peft_methods.analysis.checks.row import ResultRow

__all__ = [
    "HeadKind",
    "Settings",
    "Verdict",
    "candidates",
    "head_of",
    "known_models",
    "models_named",
    "models_of_size",
    "row_verdict",
    "setting_words",
    "settings_of",
    "verdict",
    "without_classes",
]
FEW_CLASSES = 30
LAYERS = re.compile(r"layer|block|\b(?:top|last|upper|lower|first)\b")
# Words of a row's name for parts that are trained beside the method: their counts are not known.
FURTHER = re.compile(
    r"embed|\bwte\b|\bnorms?\b|layer[\s_-]?norm|\bln\b|lm[\s_-]?head|modules[\s_-]to[\s_-]save"
    r"|vocab|\brank[\s_-]pattern|\bunfro?ee?ze|\bunfrozen"
)
ORDER: tuple[Verdict, ...] = ("fits", "head missing", "nothing", "off")


@cache
def known_models() -> Mapping[str, Architecture]:
    """Return the known architectures by name in lower case, each without a number of classes."""
    return {name: _described(one) for name, one in models.known().items()}


def _described(model: models.KnownModel) -> Architecture:
    """Return an architecture for messages: its head is the dense layer alone, if it has one."""
    one = model.architecture
    dense = pooler_size(one) if one.model_type in DENSE_HEADS else 0
    return replace(one, head_parameters=dense)


def models_named(name: str, head: HeadKind | None = None) -> tuple[Architecture, ...]:
    """Return the architectures of the known models that a name may mean.

    `bert-base` matches `bert-base-uncased` and `bert-base-cased`. An owner before a slash and words
    such as `instruct` are ignored. Returns nothing if the matches have different sizes. The number
    of classes is unknown: `labels` is 0, and of the head only a dense layer is counted (of the
    kinds "sequence" and None).
    """
    found = tuple(_described(one) for one in models.named(name))
    if head not in (None, "sequence"):
        found = tuple(replace(one, head_parameters=0) for one in found)
    return tuple(dict.fromkeys(found))


def models_of_size(full: RoundedCount, head: HeadKind | None = None) -> tuple[Architecture, ...]:
    """Return the architectures whose total parameter count is what full fine-tuning trained.

    An exact count also gives the number of classes; a rounded one does not (`labels` is 0).
    """
    exact = full.low == full.high
    found: dict[Architecture, Architecture] = {}
    for model in models.known().values():
        for one in _with_size(model.architecture, full, head, exact=exact):
            key = replace(one, head_parameters=0)
            plain = replace(key, labels=0)
            # The fewest classes: other kinds of heads may have the same size with more.
            if plain not in found or one.labels < found[plain].labels:
                found[plain] = one
    few = [one for one in found.values() if one.labels <= FEW_CLASSES]
    return tuple(few or found.values())


def _with_size(
    architecture: Architecture, full: RoundedCount, head: HeadKind | None, *, exact: bool
) -> Iterator[Architecture]:
    encoder = architecture.encoder_parameters
    for size in _whole_heads(architecture, head, exact=exact):
        # A rounded count tells no classes, but is that of few: 20 may be needed to round up.
        few = len(size.classes) if exact else bisect.bisect_right(size.classes, FEW_CLASSES)
        classes = size.classes[:few]
        labels = _fewest(classes, size, full.low - encoder)
        if labels is None or not full.holds(encoder + size.fixed + size.each * labels):
            continue
        yield replace(
            architecture,
            head_parameters=size.fixed + size.each * labels * exact,
            labels=labels * exact,
        )


def _fewest(classes: tuple[int, ...], size: HeadSize, least: float) -> int | None:
    """Return the fewest of these classes with which a head has at least so many parameters."""
    wanted = math.ceil((least - size.fixed) / size.each) if size.each else 0
    place = bisect.bisect_left(classes, wanted)
    return classes[place] if place < len(classes) else None


def _whole_heads(
    architecture: Architecture, head: HeadKind | None, *, exact: bool
) -> Iterator[HeadSize]:
    """Yield the heads, the usual one first, and the encoder with or without its pooler."""
    found = list(heads(architecture, head, vocabulary_of(architecture), any_classes=exact))
    yield from found[1:]
    yield found[0]
    if architecture.pooler:
        without = -pooler_size(architecture)
        yield from (replace(one, fixed=one.fixed + without) for one in found if not one.fixed)


def candidates(
    model: str = "", full: RoundedCount | None = None, head: HeadKind | None = None
) -> tuple[Architecture, ...]:
    """Return what a row may be about: the model that it names, or that full fine-tuning's count is.

    Where both are known, the count tells the number of classes of the model that is named.
    """
    named = models_named(model, head) if model else ()
    if full is None or (model and not named):
        return named
    by_size = models_of_size(full, head)
    if not named:
        return by_size
    plain = {replace(one, head_parameters=0) for one in named}
    return (
        tuple(one for one in by_size if replace(one, head_parameters=0, labels=0) in plain) or named
    )


def without_classes(architecture: Architecture) -> Architecture:
    """Return an architecture whose number of classes is not known."""
    dense = pooler_size(architecture) if architecture.model_type in DENSE_HEADS else 0
    return replace(architecture, labels=0, head_parameters=dense)


def verdict(
    method: str,
    count: RoundedCount,
    architectures: Iterable[Architecture],
    *,
    head: HeadKind | None = None,
    settings: Settings = ANY,
) -> Verdict | None:
    """Check a method's parameter count on candidate architectures; None without a closed form.

    Tables give counts with and without the head, so both fit. The best verdict over all
    architectures is returned. `head` None is any kind of head, and `settings` are those known.
    """
    found: set[Verdict | None] = set()
    for architecture in architectures:
        found.add(verdict_on(method, count, architecture, head, settings))
        if "fits" in found:
            return "fits"
    if None in found:
        return None
    return next((one for one in ORDER if one in found), None)


def row_verdict(row: ResultRow) -> Verdict | None:
    """Return the verdict on a row's count of trainable parameters, with what else the row names."""
    if row.trainable is None or row.method is None or not row.architectures:
        return None
    if row.trainable.high < 1 or _lacks_unit(row.trainable):  # V211 covers zero
        return None
    found = verdict(
        row.method,
        row.trainable,
        row.architectures,
        head=head_of(row.task or row.data) or _head_by_score(row),
        settings=settings_of(row),
    )
    return None if found == "off" and FURTHER.search(row.name.casefold()) else found


def _lacks_unit(count: RoundedCount) -> bool:
    """Whether a count is no whole number, as `124.6` for millions."""
    return count.value < 1000 and "." in count.text


def _head_by_score(row: ResultRow) -> HeadKind | None:
    """Return the head of an encoder that is scored by accuracy alone: tags and answers have F1."""
    kinds = {one.model_type for one in row.architectures}
    is_encoder = kinds <= set(DENSE_HEADS) - {"t5"}
    return "sequence" if is_encoder and row.accuracy is not None and not row.scores else None


def settings_of(row: ResultRow) -> Settings:
    """Return the settings that a row names."""
    return Settings(
        None if row.rank is None else int(row.rank),
        tuple(row.targets) if row.targets != ("all",) else (),  # with or without a head's layers
        row.bias,
        None if row.virtual_tokens is None else int(row.virtual_tokens),
        some_layers=LAYERS.search(row.name.casefold()) is not None,
    )


def setting_words(row: ResultRow) -> str:
    """Return the settings that a row names, for a message: " with rank 8 on query, value"."""
    said = settings_of(row)
    words = [
        *([f"rank {said.rank}"] if said.rank else []),
        *([f"{said.virtual_tokens} virtual tokens"] if said.virtual_tokens else []),
        *([f"targets {', '.join(said.targets)}"] if said.targets else []),
        *([f"bias {said.bias}"] if said.bias else []),
    ]
    return f" with {', '.join(words)}" if words else ""
