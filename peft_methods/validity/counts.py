"""Trainable parameter counts that a method can have on a known model.

Any rank, set of targets or width is possible, so a count that fits none of them is a mistake.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Literal

from peft_methods.layouts import ROLES, ModelShape, shape_of
from peft_methods.methods.lora import LoRA
from peft_methods.shapes import shape_names, shapes
from peft_methods.validity.base import FLOOR
from peft_methods.validity.figures import Written

Verdict = Literal["fits", "head missing", "nothing", "off"]
HIGHEST_RANK = 512
CLASSES = range(2, 21)  # numbers of classes tried if a table does not give it
CASED = 28_996  # vocabulary size of the cased BERT and DistilBERT (Devlin et al. 2019)
# Models with a dense layer in the head; BERT has its pooler instead.
DENSE_HEADS = ("roberta", "xlm-roberta", "camembert", "mpnet", "distilbert")
# Standard config names -> DistilBERT's names.
SIZES = {"num_hidden_layers": "n_layers", "hidden_size": "dim", "num_attention_heads": "n_heads"}


@cache
def known_models() -> dict[str, tuple[ModelShape, ...]]:
    """Return the bundled model architectures by name, one for each number of classes tried."""
    configs = {name: shapes()[name] for name in shape_names()}
    cased = {
        name.replace("-uncased", "-cased"): {**config, "vocab_size": CASED}
        for name, config in configs.items()
        if "-uncased" in name
    }
    return {
        name: tuple(_classifier(config, labels) for labels in CLASSES)
        for name, config in {**configs, **cased}.items()
    }


def _classifier(config: dict[str, object], labels: int) -> ModelShape:
    """Describe the classifier that transformers builds from a config.

    BERT keeps its pooler; the other models have a dense layer in the head instead.
    """
    sizes = {ours: config[theirs] for ours, theirs in SIZES.items() if theirs in config}
    described = SimpleNamespace(**{**config, **sizes, "num_labels": labels})
    hidden, dense = described.hidden_size, described.model_type in DENSE_HEADS
    head = dense * (hidden * hidden + hidden) + hidden * labels + labels
    return shape_of(described, head_parameters=head, pooler=not dense)


def models_named(name: str) -> tuple[ModelShape, ...]:
    """Return the architectures of the known models that a name may mean.

    `bert-base` matches `bert-base-uncased` and `bert-base-cased`. An owner before a slash is
    ignored. Returns nothing if the matches have different sizes.
    """
    wanted = name.strip().lower().rpartition("/")[2]
    found = [
        models
        for known, models in known_models().items()
        if known == wanted or known.startswith(f"{wanted}-")
    ]
    sizes = {(models[0].layers, models[0].hidden) for models in found}
    return tuple(itertools.chain.from_iterable(found)) if len(sizes) == 1 else ()


def models_of_size(full: Written) -> tuple[ModelShape, ...]:
    """Return the architectures whose total parameter count is what full fine-tuning trained."""
    every = itertools.chain.from_iterable(known_models().values())
    return tuple(
        shape for shape in every if full.holds(shape.encoder_parameters + shape.head_parameters)
    )


def verdict(method: str, count: Written, shapes: Iterable[ModelShape]) -> Verdict | None:
    """Check a method's parameter count on candidate architectures; None without a closed form.

    Tables give counts with and without the head, so both fit. The best verdict over all
    architectures is returned.
    """
    found = {one for shape in shapes if (one := _verdict(method, count, shape)) is not None}
    order: tuple[Verdict, ...] = ("fits", "head missing", "nothing", "off")
    return next((one for one in order if one in found), None)


def _verdict(method: str, count: Written, shape: ModelShape) -> Verdict | None:
    if not is_known(method):
        return None
    head, classes = shape.head_parameters, shape.hidden * shape.labels + shape.labels
    if any(_possible(method, count, shape, beside) for beside in _heads(method, shape)):
        return "fits"
    if head > classes and _possible(method, count, shape, classes):
        return "head missing"
    return "nothing" if method != "full" and count.holds(head) else "off"


def _heads(method: str, shape: ModelShape) -> Iterator[int]:
    """Yield the numbers of parameters that may be trained and counted besides the method's."""
    yield shape.head_parameters
    if shape.pooler:
        yield shape.head_parameters + _pooler(shape)
    if method != FLOOR:
        yield 0
        # A decoder's head has no bias, and a table may not mention that the model is a decoder.
        yield shape.hidden * shape.labels


def _pooler(shape: ModelShape) -> int:
    return shape.hidden * shape.hidden + shape.hidden


def is_known(method: str) -> bool:
    """Whether closed forms of this method are known here."""
    return method in {"full", FLOOR, "bitfit", "lora", "qlora", "ia3", "adapter"}


def _possible(method: str, count: Written, shape: ModelShape, beside: int) -> bool:
    """Whether the method alone can have as many as `count` less what is trained beside it."""
    low, high = count.low - beside, count.high - beside
    if method in {"lora", "qlora"}:
        return any(
            0 < -(-low // unit) <= min(HIGHEST_RANK, high // unit) for unit in _lora_units(shape)
        )
    return any(low <= form <= high for form in _forms(method, shape))


@cache
def _lora_units(shape: ModelShape) -> set[int]:
    """Parameters of rank 1, for every set of targets; PEFT takes a pooler for one more linear layer ("all-linear", "dense")."""
    units = {
        LoRA(learning_rate=1.0, rank=1, targets=targets).expected_trainable(shape)
        for targets in _target_sets()
    }
    return units | {unit + 2 * shape.hidden for unit in units if shape.pooler}


@cache
def _target_sets() -> tuple[tuple[str, ...], ...]:
    return tuple(
        chosen
        for size in range(1, len(ROLES) + 1)
        for chosen in itertools.combinations(ROLES, size)
    )


def _forms(method: str, shape: ModelShape) -> Iterable[int]:
    if method == "full":
        pooler = _pooler(shape)  # kept or left out, whatever the head is
        return (
            shape.encoder_parameters,
            shape.encoder_parameters + (-pooler if shape.pooler else pooler),
        )
    if method == "bitfit":
        return (shape.encoder_biases, shape.encoder_biases - shape.pooler * shape.hidden)
    if method == "ia3":
        return ia3_forms(shape)
    return _adapter_forms(shape) if method == "adapter" else (0,)


def ia3_forms(shape: ModelShape) -> set[int]:
    """Every set of targets, each map scaled at its inputs (as a feed-forward one) or at its outputs."""
    sides = [(0, *shape.dimensions[role]) for role in ROLES]
    return {shape.layers * sum(chosen) for chosen in itertools.product(*sides)} - {0}


def _adapter_forms(shape: ModelShape) -> Iterator[int]:
    """One or two bottlenecks a layer of any width, with or without norms of their own."""
    hidden, places = shape.hidden, (1, 2)
    for width, place, norm in itertools.product(range(1, hidden + 1), places, (0, 2 * hidden)):
        yield shape.layers * place * (2 * hidden * width + width + hidden + norm)
