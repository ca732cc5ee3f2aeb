"""A run without data: its model with the method applied, and batches of rows of one length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from peft_methods.data import synthetic
from peft_methods.data.token_rows import TokenRow, TokenRows
from peft_methods.data.tokenize import tokenize
from peft_methods.estimation.memory import fake_model, packed
from peft_methods.estimation.memory.cuda_rules import AMPERE
from peft_methods.estimation.memory.partition import StoredSizes
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.models import loading
from peft_methods.models.config import load_config, padding_of
from peft_methods.models.padding import embedding_rows
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.collate import model_inputs
from peft_methods.tasks.registry import TASKS
from peft_methods.training.collate import make_collator, training_collator
from peft_methods.utils.errors import ModelError

DRAWN_ROWS = 8  # of tokens: a batch has them again and again
LEAST_TOKENS = 128  # of the rows from which a method starts
MOST_DRAWN = 500_000_000  # parameters: 2 GB


@dataclass(frozen=True)
class FakeRun:
    """A model with its method applied, batches and a mode, ready to be run without data."""

    recipe: Recipe
    method: Method
    base: loading.LoadedModel
    model: nn.Module
    batch: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    mode: FakeTensorMode
    length: int
    packs: bool = False
    pads: bool = True
    capability: tuple[int, int] = AMPERE
    is_in_16_bits: bool = True
    stored: dict[Any, StoredSizes | None] = field(default_factory=dict)


def build(
    recipe: Recipe,
    method: Method,
    length: int,
    *,
    packs: bool = False,
    pads: bool = True,
    capability: tuple[int, int] = AMPERE,
) -> FakeRun:
    """Build the model without data, apply the method, and draw batches of rows of this length.

    `packs`: the rows of a decoder are packed, and its layers compiled. `pads`: some row of a batch
    is padded, so that there is a mask. `capability` is the compute capability of the GPU. Raises
    `ModelError`, `DataError` and whatever the method raises for a model that it cannot train.
    """
    task, mode = TASKS[recipe.task], fake_model.fake_mode()
    spec = replace(recipe.model, weights="random")
    size, more = recipe.budget.batch_size, recipe.budget.evaluation_batch_size
    rows = replace(
        recipe.data,
        train=min(max(size, more), DRAWN_ROWS),
        validation=1,
        test=1,
        max_length=length,
        token_lengths=None,
    )
    config = load_config(spec, task.head)
    end = config.eos_token_id if config.is_encoder_decoder else None
    texts = synthetic.draw(rows, task, embedding_rows(config), padding_of(config), end)
    base = loading.load(spec, task.head, texts.facts.label_names, device=loading.META)
    tokens = tokenize(texts, texts.tokenizer or base.tokenizer, rows, task, check=False).train
    tokenizer = texts.tokenizer or base.tokenizer
    if packs:
        batch = packed.packed_batch(make_collator(recipe, tokenizer), tokens, size)
    else:
        batch = training_collator(recipe, tokenizer)(_repeated(tokens, size))
    evaluated = make_collator(recipe, tokenizer)(_repeated(tokens, more))
    few = {name: value[:2, :LEAST_TOKENS] for name, value in model_inputs(evaluated).items()}
    base, model = _with_method(recipe, method, base, texts.facts.label_names, few)
    base.model.config.use_cache = False  # as the Trainer sets it
    fake_model.without_data(model, mode, has_outliers=recipe.model.weights == "pretrained")
    return FakeRun(
        *(recipe, method, base, model, batch, evaluated, mode, length, packs, pads, capability),
        is_in_16_bits=packed.is_in_16_bits(recipe.model, config.dtype),
    )


def _repeated(rows: TokenRows, count: int) -> list[TokenRow]:
    """Return so many rows: those there are, again and again."""
    return [rows[n % len(rows)] for n in range(count)]


def _with_method(
    recipe: Recipe,
    method: Method,
    base: loading.LoadedModel,
    names: tuple[str, ...],
    rows: Mapping[str, Any],
) -> tuple[loading.LoadedModel, nn.Module]:
    """Return the base model, on the meta device, and the same with the method applied.

    How a few methods start depends on the values of weights: theirs are drawn where the model is
    small. Raises `ModelError` where it is not.
    """
    task, kind, spec = TASKS[recipe.task], method.info.quantization, recipe.model
    size = sum(p.numel() for p in base.model.parameters())
    wanted = {"quantization": kind, "precision": recipe.budget.precision}

    def drawn(**options: Any) -> loading.LoadedModel:
        if size > MOST_DRAWN:
            raise ModelError(
                f"{method.title} starts from the values of the weights, which an estimate does not "
                f"have: there is none for a model of more than {MOST_DRAWN / 1e6:,.0f} million "
                f"parameters",
                setting="model.source",
            )
        return loading.load(replace(spec, weights="random"), task.head, names, **options)

    def context(of: loading.LoadedModel) -> ApplyContext:
        return ApplyContext(
            of.architecture,
            of.head,
            task.peft_type,
            unquantized=lambda: drawn().model,
            train_batches=lambda _: [rows],
        )

    try:
        if kind is not None:
            fake_model.quantize(base.model, kind, loading.DTYPES[recipe.budget.precision])
        return base, method.apply(base.model, context(base))
    except (NotImplementedError, RuntimeError, IndexError):
        real = drawn(**wanted)
        return real, method.apply(real.model, context(real))
