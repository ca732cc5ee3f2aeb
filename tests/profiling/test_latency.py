"""Latency and throughput of inference."""

from __future__ import annotations

from pathlib import Path

from builders import prepared
from peft_methods.profiling.latency import BATCH, measure_inference
from peft_methods.tasks.collate import Collator


def test_inference_cost_times_rows_and_batches_and_restores_the_mode(tiny_recipe: Path) -> None:
    _, _, base, model, tokens = prepared(tiny_recipe, "lora")
    sizes: list[int] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    model.train()
    cost = measure_inference(
        model, tokens.test, Collator(base.tokenizer), precision="fp32", synchronize=lambda: None
    )
    assert cost is not None
    assert cost.latency_seconds > 0
    assert cost.inference_samples_per_second > 0
    assert set(sizes) == {1, min(BATCH, len(tokens.test))}
    assert model.training


def test_inference_cost_is_none_without_rows(tiny_recipe: Path) -> None:
    _, _, base, model, tokens = prepared(tiny_recipe, "lora")
    assert (
        measure_inference(
            model,
            tokens.test.select([]),
            Collator(base.tokenizer),
            precision="fp32",
            synchronize=lambda: None,
        )
        is None
    )
