"""Trainable parameter counts that a method can have on a known model.

Any rank, set of targets or width is possible, so a count that fits none of them is a mistake.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal

from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.methods.registry import METHODS
from peft_methods.models.architecture import Architecture, architecture_of
from peft_methods.models.decoder_maps import DECODER_MAPS
from peft_methods.models.presets import presets, shape_names

Verdict = Literal["fits", "head missing", "nothing", "off"]
CLASSES = range(2, 21)  # numbers of classes tried if a table does not give it
CASED = 28_996  # vocabulary size of the cased BERT and DistilBERT (Devlin et al. 2019)
# Models with a dense layer in the head; BERT has its pooler instead. ModernBERT's has a norm in
# place of biases.
DENSE_HEADS = (
    *("roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "deberta-v2", "modernbert"),
)
# Standard config names -> DistilBERT's names.
SIZES = {"num_hidden_layers": "n_layers", "hidden_size": "dim", "num_attention_heads": "n_heads"}


@cache
def known_models() -> dict[str, tuple[Architecture, ...]]:
    """Return the bundled model architectures by name, one for each number of classes tried."""
    configs = {name: presets()[name] for name in shape_names()}
    cased = {
        name.replace("-uncased", "-cased"): {**config, "vocab_size": CASED}
        for name, config in configs.items()
        if "-uncased" in name
    }
    return {
        name: tuple(_classifier(config, labels) for labels in CLASSES)
        for name, config in {**configs, **cased}.items()
    }


def _classifier(config: Mapping[str, Any], labels: int) -> Architecture:
    """Describe the classifier that transformers builds from a config."""
    sizes = {ours: config[theirs] for ours, theirs in SIZES.items() if theirs in config}
    described = SimpleNamespace(**{**config, **sizes, "num_labels": labels})
    hidden, kind = described.hidden_size, described.model_type
    dense = kind in DENSE_HEADS
    head = dense * (hidden * hidden + hidden) + hidden * labels
    head += labels * (kind not in DECODER_MAPS)  # theirs is one matrix
    pooler = not dense and kind not in DECODER_MAPS
    return architecture_of(described, head_parameters=head, pooler=pooler)


def models_named(name: str) -> tuple[Architecture, ...]:
    """Return the architectures of the known models that a name may mean.

    `bert-base` matches `bert-base-uncased` and `bert-base-cased`. An owner before a slash is
    ignored. Returns nothing if the matches have different sizes.
    """
    wanted = name.strip().lower().rpartition("/")[2]
    found = [
        models
        for known, models in known_models().items()
        if known.lower() == wanted or known.lower().startswith(f"{wanted}-")
    ]
    sizes = {(models[0].layers, models[0].hidden) for models in found}
    return tuple(itertools.chain.from_iterable(found)) if len(sizes) == 1 else ()


def models_of_size(full: RoundedCount) -> tuple[Architecture, ...]:
    """Return the architectures whose total parameter count is what full fine-tuning trained."""
    every = itertools.chain.from_iterable(known_models().values())
    return tuple(
        architecture
        for architecture in every
        if full.holds(architecture.encoder_parameters + architecture.head_parameters)
    )


def verdict(
    method: str, count: RoundedCount, architectures: Iterable[Architecture]
) -> Verdict | None:
    """Check a method's parameter count on candidate architectures; None without a closed form.

    Tables give counts with and without the head, so both fit. The best verdict over all
    architectures is returned.
    """
    found = {
        one
        for architecture in architectures
        if (one := _verdict(method, count, architecture)) is not None
    }
    order: tuple[Verdict, ...] = ("fits", "head missing", "nothing", "off")
    return next((one for one in order if one in found), None)


def _verdict(method: str, count: RoundedCount, architecture: Architecture) -> Verdict | None:
    if not has_closed_form(method):
        return None
    head, classes = (
        architecture.head_parameters,
        architecture.hidden * architecture.labels + architecture.labels,
    )
    if any(
        _possible(method, count, architecture, beside) for beside in _heads(method, architecture)
    ):
        return "fits"
    if head > classes and _possible(method, count, architecture, classes):
        return "head missing"
    return "nothing" if _scope(method) != "all" and count.holds(head) else "off"


def _heads(method: str, architecture: Architecture) -> Iterator[int]:
    """Yield the numbers of parameters that may be trained and counted besides the method's."""
    yield architecture.head_parameters
    if architecture.pooler:
        yield architecture.head_parameters + _pooler(architecture)
    if _scope(method) != "head":
        yield 0
        # A decoder's head has no bias, and a table may not mention that the model is a decoder.
        yield architecture.hidden * architecture.labels


def _pooler(architecture: Architecture) -> int:
    return architecture.hidden * architecture.hidden + architecture.hidden


def has_closed_form(method: str) -> bool:
    """Whether the counts that this method can have are known."""
    return any(
        _possible_counts(method, architecture)
        for architecture in known_models()["bert-base-uncased"][:1]
    )


def _scope(method: str) -> str:
    return METHODS[method].info.scope


def _possible(method: str, count: RoundedCount, architecture: Architecture, beside: int) -> bool:
    """Whether the method alone can have as many as `count` less what is trained beside it."""
    low, high = count.low - beside, count.high - beside
    counts = _possible_counts(method, replace(architecture, head_parameters=0, labels=0))
    place = bisect.bisect_left(counts, low)
    return place < len(counts) and counts[place] <= high


@cache
def _possible_counts(method: str, architecture: Architecture) -> tuple[int, ...]:
    """The method's possible counts, ascending. They do not depend on the head."""
    if method not in METHODS:
        return ()
    return tuple(sorted(set(METHODS[method].possible_counts(architecture))))
