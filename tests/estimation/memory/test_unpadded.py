"""Batches without padding: what attention takes then, and that nothing of it is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AttentionInterface, LlamaConfig, Qwen2Config

from peft_methods.estimation.memory.estimate import RunEstimates
from peft_methods.estimation.memory.fake_run import build
from peft_methods.estimation.memory.program import record
from peft_methods.estimation.memory.simulation import simulate
from peft_methods.estimation.memory.unpadded import NAME, without_padding
from peft_methods.estimation.question import question_of

LAYERS, HEADS, ROWS, LENGTH = 2, 4, 4, 256
SIZES = {
    "vocab_size": 100,
    "hidden_size": 16 * HEADS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}


def run_of(folder: Path, config: Any, precision: str = "fp32") -> tuple[Any, Any]:
    """Return the recipe and the method of a LoRA run of this model."""
    config.save_pretrained(folder)
    settings = (f"budget.precision={precision}", "budget.evaluation_batch_size=1")
    question = question_of(
        str(folder), recipe="imdb_roberta", methods=("lora",), batch_size=ROWS, settings=settings
    )
    return question.recipe, question.methods[0]


def kept(run: tuple[Any, Any], *, pads: bool, length: int = LENGTH) -> int:
    """Return the bytes of activations at the peak."""
    program = record(build(*run, length, pads=pads))
    return simulate(program).parts["activations"]


def test_scores_of_shared_keys_are_stored_in_fp32_without_padding(tmp_path: Path) -> None:
    shared = run_of(tmp_path / "shared", LlamaConfig(**SIZES, num_key_value_heads=2))
    own = run_of(tmp_path / "own", LlamaConfig(**SIZES, num_key_value_heads=HEADS))
    scores = LAYERS * ROWS * HEADS * LENGTH**2 * 4
    assert kept(shared, pads=False) - kept(shared, pads=True) > 0.8 * scores
    assert kept(own, pads=False) <= kept(own, pads=True), "the efficient kernel stores no scores"
    half = run_of(tmp_path / "half", LlamaConfig(**SIZES, num_key_value_heads=2), "bf16")
    assert kept(half, pads=False) < kept(half, pads=True), "the flash kernel knows shared keys"


def test_the_worse_of_both_kinds_of_batches_is_the_estimate(tmp_path: Path) -> None:
    run = run_of(tmp_path, LlamaConfig(**SIZES, num_key_value_heads=2))
    estimates = RunEstimates(*run, "trainer")
    for length, pads in ((LENGTH, False), (16, True)):
        found = estimates.memory(ROWS, length).memory
        assert found.parts["activations"] == kept(run, pads=pads, length=length)
        assert kept(run, pads=pads, length=length) > kept(run, pads=not pads, length=length)


def test_a_single_row_has_no_padding(tmp_path: Path) -> None:
    recipe, method = run_of(tmp_path, LlamaConfig(**SIZES, num_key_value_heads=2), "bf16")
    program = RunEstimates(recipe, method, "trainer").memory(1, LENGTH).program
    assert any("flash_attention" in one.name for one in program.operations)


@pytest.mark.parametrize(("window", "skips"), [(LENGTH + 1, True), (LENGTH, False)])
def test_rows_longer_than_a_window_keep_their_mask(
    tmp_path: Path, window: int, skips: bool
) -> None:
    config = Qwen2Config(
        **SIZES,
        num_key_value_heads=HEADS,
        use_sliding_window=True,
        sliding_window=window,
        max_window_layers=0,
    )
    run = run_of(tmp_path, config, "bf16")
    names = [one.name for one in record(build(*run, LENGTH, pads=False)).recording.operations]
    assert any("flash_attention" in one for one in names) == skips


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    model = build(*run_of(tmp_path, LlamaConfig(**SIZES)), LENGTH).model
    config: Any = model.base_model.model.config
    with pytest.raises(KeyError, match=NAME), without_padding(model):
        raise KeyError(f"a failure with {config._attn_implementation}")
    assert config._attn_implementation == "sdpa"
    assert NAME not in AttentionInterface._global_mapping
