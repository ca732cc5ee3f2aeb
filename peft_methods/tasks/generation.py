"""Texts that a language model writes after prompts: greedily in slots, or in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from peft_methods.models import ranks
from peft_methods.tasks.decoding.greedy import Prompt, decode
from peft_methods.tasks.decoding.probe import LENGTHS, differs
from peft_methods.tasks.decoding.support import refusal
from peft_methods.tasks.lm_encoding import Encoder, padded_left
from peft_methods.tasks.lm_predictions import SAMPLES, Generated

if TYPE_CHECKING:
    from torch import nn
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    from peft_methods.data.labelled_texts import LabelledTexts
    from peft_methods.recipes.schema import Recipe


def generate_texts(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, table: LabelledTexts, recipe: Recipe
) -> Generated:
    """Return what the model writes after each prompt. It is deterministic: nothing is drawn.

    Greedy texts are decoded in `budget.evaluation_batch_size` slots, each refilled when its text
    ends; with beams, and where a model does not allow it, transformers' `generate` does so in
    batches of similar length, padded at the left. Several ranks share the prompts.
    A text ends before the end-of-sequence token, or after `data.max_new_tokens` tokens, or where
    the model has no further positions. Prompts are cut as in training, to `data.max_length` less
    one token.
    """
    data = recipe.data
    prompts = [ids[: data.max_length - 1] for ids in Encoder(tokenizer, data.source).prompts(table)]
    order = np.argsort([len(ids) for ids in prompts], kind="stable")[::-1].tolist()
    ends = end_tokens(model, tokenizer)
    greedy = data.beams == 1
    fallback = _why_not_slots(model, prompts) if greedy else ""
    write = in_slots if greedy and not fallback else in_batches
    try:
        written = write(model, tokenizer, prompts, order, recipe)
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # no later peak of reserved memory includes what was used here
    stop = [next((n for n, one in enumerate(ids) if one in ends), len(ids)) for ids in written]
    texts = [
        str(tokenizer.decode(list(ids[:end]), skip_special_tokens=True))
        for ids, end in zip(written, stop, strict=True)
    ]
    return Generated(
        tuple(texts),
        tuple((one,) if isinstance(one, str) else tuple(one) for one in table.labels),
        tuple(table.texts[:SAMPLES]),
        np.asarray(stop, dtype=np.int64),
        np.asarray([end < len(ids) for end, ids in zip(stop, written, strict=True)], dtype=bool),
        data.answer_pattern or "",
        fallback,
    )


def _why_not_slots(model: nn.Module, prompts: Sequence[Sequence[int]]) -> str:
    """Return why texts are not decoded in slots, or ''; the same on all ranks.

    The model is tried on a few tokens.
    """
    limit = max(LENGTHS)
    if (positions := _positions(model)) is not None:
        limit = max(1, min(limit, positions - 2))
    tokens = [one for ids in prompts for one in ids][:limit]
    reason = refusal(model) or (differs(model, tokens) if tokens else "")
    return next(filter(None, ranks.gathered(reason)), "")


def in_slots(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    order: Sequence[int],
    recipe: Recipe,
) -> list[Sequence[int]]:
    """Return the new tokens of each prompt, decoded in slots; none where there is no room."""
    written: list[Sequence[int]] = [()] * len(prompts)
    rooms = [_new_tokens(model, ids, recipe) for ids in prompts]
    rows = [row for row in order if rooms[row] > 0]
    own = [Prompt(prompts[row], rooms[row]) for row in ranks.dealt(rows)]
    made = decode(model, own, end_tokens(model, tokenizer), recipe.budget.evaluation_batch_size)
    for row, ids in zip(rows, ranks.collected(made, len(rows)), strict=True):
        written[row] = ids
    return written


def in_batches(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    order: Sequence[int],
    recipe: Recipe,
) -> list[Sequence[int]]:
    """Return the new tokens of each prompt, by transformers' `generate` in padded batches."""
    size, ends = recipe.budget.evaluation_batch_size, end_tokens(model, tokenizer)
    written: list[Sequence[int]] = [()] * len(prompts)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    batches = [rows for rows in batches if _new_tokens(model, prompts[rows[0]], recipe) > 0]
    with torch.inference_mode():
        made = [
            _batch(model, tokenizer, [prompts[row] for row in rows], recipe, sorted(ends))
            for rows in ranks.dealt(batches)
        ]
    ranks.divide_again(model)
    for rows, texts_of_batch in zip(batches, ranks.collected(made, len(batches)), strict=True):
        for row, ids in zip(rows, texts_of_batch, strict=True):
            written[row] = ids
    return written


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end a text: that of the tokenizer and those that the model names."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = named if isinstance(named, list | tuple) else [named]
    known = (tokenizer.eos_token_id, *several)
    return list(dict.fromkeys(int(one) for one in known if one is not None))


def _batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    recipe: Recipe,
    ends: list[int],
) -> list[list[int]]:
    """Return the new tokens of each prompt. What follows the first end token is padding."""
    from transformers import GenerationConfig

    longest, data = max(map(len, prompts)), recipe.data
    padding = next((one for one in (tokenizer.pad_token_id, *ends) if one is not None), 0)
    ids, mask = padded_left(prompts, padding)
    settings = GenerationConfig(
        max_new_tokens=_new_tokens(model, max(prompts, key=len), recipe),
        do_sample=False,
        num_beams=data.beams,
        eos_token_id=ends or None,
        pad_token_id=padding,
        use_cache=True,
    )
    device = next(model.parameters()).device
    with _only_these_settings(model, settings):
        found = model.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=settings,
            synced_gpus=ranks.is_sharded(model),  # ranks with short texts wait for the others
        )
    made: list[list[int]] = found[:, longest:].tolist()
    return made


def _new_tokens(model: Any, longest: Sequence[int], recipe: Recipe) -> int:
    """Return how many tokens may follow a prompt, the longest of a batch; 0 if it has none."""
    limit, new = _positions(model), recipe.data.max_new_tokens
    room = new if limit is None else min(new, limit - len(longest))
    return room if len(longest) else 0


def _positions(model: Any) -> int | None:
    """Return the number of positions that a model has, or None."""
    return getattr(model.config, "max_position_embeddings", None)


@contextmanager
def _only_these_settings(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Context manager: keep the model's own sampling settings out of the generation."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = plain.generation_config
    plain.generation_config = settings
    try:
        yield
    finally:
        plain.generation_config = own
