"""The batches of evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import prepared
from peft_methods.tasks.collate import Collator
from peft_methods.tasks.registry import TASKS
from peft_methods.training.evaluation import ROW_TOKENS, batches_of, predict

Sizes = st.integers(min_value=1, max_value=40)
Lengths = st.lists(st.integers(min_value=1, max_value=512), max_size=200)


@given(Lengths, Sizes)
def test_no_batch_needs_more_than_the_first(lengths: list[int], size: int) -> None:
    falling = sorted(lengths, reverse=True)
    batches = [falling[places] for places in batches_of(falling, size)]
    assert [length for batch in batches for length in batch] == falling
    for batch in batches:
        assert len(batch) * batch[0] <= size * falling[0]
        assert len(batch) * (batch[0] + ROW_TOKENS) <= size * (falling[0] + ROW_TOKENS)
    assert all(len(batch) >= size for batch in batches[:-1])


def test_short_rows_share_a_batch() -> None:
    falling = [512] * 8 + [96] * 34
    assert batches_of(falling, 8) == [slice(0, 8), slice(8, 42)]


def test_rows_padded_to_one_length_have_batches_of_one_size() -> None:
    places = batches_of([400, 20, 10, 5, 1], 2, fixed=512)
    assert places == [slice(0, 2), slice(2, 4), slice(4, 6)]


@pytest.mark.parametrize("length", [None, 64])
def test_predictions_are_those_of_each_row_alone(tiny_recipe: Path, length: int | None) -> None:
    recipe, _, base, model, tokens = prepared(tiny_recipe, "lora")
    rows, sizes = tokens.test, list[tuple[int, int]]()
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    task, collate = TASKS[recipe.task], Collator(base.tokenizer, length)
    found: Any = predict(task, model, rows, collate, 3)
    hook.remove()
    assert sum(count for count, _ in sizes) == len(rows)
    assert sizes[0][0] == 3
    assert {width for _, width in sizes} == {length} or length is None
    with torch.inference_mode():
        model.eval()
        alone = [task.predict(model, collate([row])).numpy()[0] for row in rows]
    np.testing.assert_allclose(found.logits, np.stack(alone), atol=1e-5)
