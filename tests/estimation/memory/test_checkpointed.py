"""Estimates with gradient checkpointing: layers that are computed again, in every precision."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig

from peft_methods.estimation.memory.estimate import RunEstimates
from peft_methods.estimation.question import question_of

ROWS, LENGTH = 8, 64


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("decoder")
    LlamaConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
    ).save_pretrained(folder)
    return str(folder)


def memory_of(model: str, method: str, engine: str, *, checkpointing: bool) -> Any:
    question = question_of(
        model,
        recipe="imdb_roberta",
        methods=(method,),
        batch_size=ROWS,
        max_length=LENGTH,
        checkpointing=checkpointing,
        engine=engine,
        settings=("budget.evaluation_batch_size=1",),
    )
    return RunEstimates(question.recipe, question.methods[0], engine).memory(ROWS, LENGTH).memory


@pytest.mark.parametrize("engine", ["trainer", "cuda_graphs"])
@pytest.mark.parametrize("method", ["lora", "qlora", "lora_int8"])
def test_layers_are_computed_again_in_the_precision_of_the_first_time(
    decoder: str, method: str, engine: str
) -> None:
    stored = memory_of(decoder, method, engine, checkpointing=False)
    again = memory_of(decoder, method, engine, checkpointing=True)
    assert again.parts["activations"] < stored.parts["activations"]


def test_what_is_needed_only_to_hold_weights_in_half_precision_is_no_part_of_training(
    decoder: str,
) -> None:
    found = memory_of(decoder, "psoft", "cuda_graphs", checkpointing=False)
    assert found.parts["rounding"] < 0.1 * found.parts["activations"]
