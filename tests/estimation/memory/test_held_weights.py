"""Frozen embeddings of decoders are held in 16 bits where these represent their values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from peft_methods.estimation.api import estimate
from peft_methods.estimation.memory.estimate import RunEstimates
from peft_methods.estimation.question import question_of
from peft_methods.recipes.schema import Recipe

WORDS, WIDTH = 5_000, 64
ROWS, LENGTH = 4, 32


def folder_of(path: Path, dtype: torch.dtype | None) -> str:
    LlamaConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
        dtype=dtype,
    ).save_pretrained(path)
    return str(path)


def weights_of(recipe: Recipe, method: object) -> int:
    found = RunEstimates(recipe, method, "cuda_graphs").memory(ROWS, LENGTH)  # type: ignore[arg-type]
    return found.memory.parts["weights"]


@pytest.mark.parametrize(
    ("published", "weights", "size"),
    [
        (torch.float32, "pretrained", 4),
        (torch.bfloat16, "pretrained", 2),
        (None, "pretrained", 2),
        (torch.float32, "random", 2),
    ],
)
def test_embeddings_have_the_bytes_of_a_run(
    published: torch.dtype | None, weights: str, size: int, tmp_path: Path
) -> None:
    question = question_of(
        folder_of(tmp_path, published),
        recipe="imdb_decoder",
        methods=("head_only",),
        batch_size=ROWS,
        max_length=LENGTH,
    )
    model = replace(question.recipe.model, weights=weights)
    recipe = replace(question.recipe, model=model)
    found = weights_of(recipe, question.methods[0])
    # Layers: queries and outputs, keys and values of half the heads, the three of the block, norms
    layer = 2 * (3 * WIDTH**2 + 3 * 128 * WIDTH) + 4 * 2 * WIDTH
    head, last_norm, frequencies = 4 * 2 * WIDTH, 4 * WIDTH, 2 * 4 * 8
    others = 2 * layer + head + last_norm + frequencies
    assert found == pytest.approx(size * WORDS * WIDTH + others, rel=0.01)


def test_question_is_about_pretrained_weights(tmp_path: Path) -> None:
    (found,) = estimate(
        folder_of(tmp_path, torch.float32),
        recipe="imdb_decoder",
        methods="head_only",
        batch_size=ROWS,
        max_length=LENGTH,
        engine="cuda_graphs",
    )
    assert found.memory is not None
    assert found.memory.parts["weights"] > 4 * WORDS * WIDTH
