"""Whether a count can be that of a method: solved for the number of classes and the settings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, lru_cache
from typing import Literal

import numpy as np

from peft_methods.analysis.checks.counts import low_rank, others
from peft_methods.analysis.checks.counts.heads import (
    DENSE_HEADS,
    HeadKind,
    HeadSize,
    biases_of_heads,
    heads,
    output_layer,
    pooler_size,
)
from peft_methods.analysis.checks.counts.parts import ANY, Numbers, Settings, vocabulary_of
from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.methods.adapters.adapter_drop import AdapterDrop
from peft_methods.methods.adapters.bottleneck import Adapter
from peft_methods.methods.adapters.houlsby import HoulsbyAdapter
from peft_methods.methods.base import Method
from peft_methods.methods.low_rank.dora import DoRA
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.prompts.p_tuning_v2 import PTuningV2
from peft_methods.methods.prompts.prefix_tuning import PrefixTuning
from peft_methods.methods.prompts.prompt_tuning import PromptTuning
from peft_methods.methods.registry import METHODS
from peft_methods.methods.scaling.ia3 import IA3
from peft_methods.methods.selective.bitfit import BitFit
from peft_methods.methods.selective.full import Full
from peft_methods.methods.selective.head_only import HeadOnly
from peft_methods.models.architecture import Architecture

Verdict = Literal["fits", "head missing", "nothing", "off"]
Form = Callable[[Architecture, Settings], Numbers]
FORMS: dict[type[Method], Form] = {
    LoRA: low_rank.lora_counts,
    DoRA: low_rank.dora_counts,
    IA3: others.ia3_counts,
    BitFit: others.bitfit_counts,
    Full: others.full_counts,
    HeadOnly: others.head_counts,
    Adapter: others.adapter_counts,
    HoulsbyAdapter: others.adapter_counts,
    AdapterDrop: others.dropped_counts,
    PTuningV2: others.prefix_counts,
    PrefixTuning: others.prefix_counts,
    PromptTuning: others.prompt_counts,
}
# Authors give a count in units of 2^20 or 2^10 too, without saying so.
BINARY = {"m": 2**20 / 1e6, "k": 2**10 / 1e3, "b": 2**30 / 1e9}


def verdict_on(
    method: str,
    count: RoundedCount,
    architecture: Architecture,
    head: HeadKind | None = None,
    settings: Settings = ANY,
) -> Verdict | None:
    """Return what a method's count on one architecture tells; None where counts are not known."""
    numbers = _numbers(method, architecture, settings)
    if numbers is None or not len(numbers):
        return None
    scope = METHODS[method].info.scope
    ranges = _ranges(count)
    if head is None and architecture.labels and architecture.model_type in DENSE_HEADS:
        # Full fine-tuning's count told the classes, and that the head has a dense layer.
        head = "sequence" if architecture.head_parameters > pooler_size(architecture) else None
    rows = vocabulary_of(architecture)
    every = [tuple(heads(architecture, head, rows))]
    if issubclass(METHODS[method], BitFit):
        every[0] += tuple(biases_of_heads(architecture, rows))
    tried = [numbers]
    if count.low == count.high:
        every.append(tuple(heads(architecture, head, rows, any_classes=True)))
        usual = _numbers(method, architecture, replace(settings, is_usual=True))
        tried.append(numbers if usual is None else usual)
    for some, sizes in zip(tried, every, strict=True):
        own = sizes if scope != "head" else sizes[1:]
        if any(_is_possible(some, limits, own) for limits in ranges):
            return "fits"
    if architecture.model_type in DENSE_HEADS and head == "sequence":
        last = (output_layer(architecture),)
        if any(_is_possible(numbers, limits, last) for limits in ranges):
            return "head missing"
    nothing = np.zeros(1, dtype=np.int64)
    if scope == "part" and any(_is_possible(nothing, limits, every[0][1:]) for limits in ranges):
        return "nothing"
    return None if _is_open(method, count, architecture, settings) else "off"


def tried(method: str) -> str | None:
    """Return in words which counts of a method are compared with; None if there are none."""
    form = _form(METHODS[method])
    if form is None:
        return None
    words = (inspect.getdoc(form) or "").partition("\n\n")[0]
    return " ".join(words.removeprefix("Return ").split()).removesuffix(".")


def _ranges(count: RoundedCount) -> tuple[tuple[float, float], ...]:
    """Return the ranges of numbers that a text may stand for.

    A program divides by 2^20 or 2^10, and writes every digit: `110M` is then not `105M` to `120M`.
    """
    found = ((count.low, count.high),)
    if count.low == count.high or count.value <= 0:
        return found
    unit = count.text.strip().rstrip("†*‡").casefold()[-1:]
    factor = BINARY.get(unit, BINARY["m"] if count.value >= 1e6 else 1.0)
    last = 10.0 ** (math.floor(math.log10(count.value)) + 1 - count.written)
    low, high = max(count.low, count.value - last / 2), min(count.high, count.value + last)
    return (*found, (low * factor, high * factor))


def _is_possible(numbers: Numbers, limits: tuple[float, float], sizes: Iterable[HeadSize]) -> bool:
    """Whether one of the numbers, and one of the heads, are together within the limits."""
    for size in sizes:
        beside = size.fixed + size.each * np.array(size.classes, dtype=np.int64)
        places = np.searchsorted(numbers, limits[0] - beside)
        inside = places < len(numbers)
        if np.any(numbers[places[inside]] <= limits[1] - beside[inside]):
            return True
    return False


def _is_open(
    method: str, count: RoundedCount, architecture: Architecture, settings: Settings
) -> bool:
    """Whether other settings than the usual ones may give so many parameters."""
    if issubclass(METHODS[method], LoRA) and architecture.model_type == "t5":
        return True  # PEFT's "all-linear" has the dense layer of a classifier too
    is_prefix = issubclass(METHODS[method], PTuningV2)
    limit = others.prefix_limit(architecture, settings)
    return is_prefix and count.low > limit


def _form(method: type[Method]) -> Form | None:
    if method in FORMS:
        return FORMS[method]
    for base in method.__mro__[1:]:
        if base in FORMS and base in (DoRA, LoRA, IA3, HeadOnly):
            # A subclass that counts otherwise has possible counts of its own.
            if _own(method) is not _own(base):
                break
            return FORMS[base]
    return _from_method(method)


def _own(method: type[Method]) -> object:
    return method.possible_counts.__func__  # type: ignore[attr-defined]


def _from_method(method: type[Method]) -> Form | None:
    """Return the counts that the method itself gives, as one from a plugin may."""
    if _own(method) in {_own(Method), _own(DoRA)}:
        return None

    def form(architecture: Architecture, settings: Settings) -> Numbers:
        """Return the counts of usual settings of the method."""
        if not architecture.linear_layers or architecture.module_map is None:
            return np.zeros(0, dtype=np.int64)
        return _listed(method.info.name, architecture)

    return form


@lru_cache(maxsize=64)
def _listed(method: str, architecture: Architecture) -> Numbers:
    return np.unique(np.fromiter(METHODS[method].possible_counts(architecture), dtype=np.int64))


@lru_cache(maxsize=256)
def _numbers(method: str, architecture: Architecture, settings: Settings) -> Numbers | None:
    if method not in METHODS:
        return None
    form = _form(METHODS[method])
    return None if form is None else _computed(form, _without_head(architecture), settings)


@cache
def _without_head(architecture: Architecture) -> Architecture:
    return replace(architecture, head_parameters=0, labels=0)


@lru_cache(maxsize=64)
def _computed(form: Form, architecture: Architecture, settings: Settings) -> Numbers:
    return form(architecture, settings)
