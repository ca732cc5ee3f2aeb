"""Latency and throughput of inference."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from builders import prepared
from peft_methods.profiling.latency import (
    BATCH,
    LEAST_PASSES,
    is_precise,
    measure_inference,
    median_of_passes,
)
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


def test_times_that_hardly_differ_need_few_passes() -> None:
    steady = [0.0300, 0.0301, 0.0299, 0.0300, 0.0302, 0.0300]
    assert len(steady) == LEAST_PASSES
    assert not is_precise(steady[:-1])
    assert is_precise(steady)
    assert is_precise([*steady[:-1], 0.3])  # one long pass changes no median
    assert not is_precise([0.030, 0.035, 0.028, 0.033, 0.030, 0.036])  # 10 % apart


def test_a_precise_median_has_the_stated_standard_error() -> None:
    draw = random.Random(0)
    errors = []
    for _ in range(2000):
        times = [draw.gauss(1, 0.03) for _ in range(LEAST_PASSES)]
        while not is_precise(times):
            times.append(draw.gauss(1, 0.03))
        errors.append(np.median(times) - 1)
    assert abs(np.mean(errors)) < 0.001
    assert np.std(errors) < 0.0135  # quartiles of few times vary


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_passes_end_when_their_median_is_known(spread: float) -> None:
    draw = random.Random(0)
    numbers: list[int] = []

    def timed(number: int) -> float:
        numbers.append(number)
        return 9.0 if number == 0 else 0.03 * (1 + spread * draw.random())

    found = median_of_passes(timed, most=20, skipped=1)
    assert numbers == list(range(21 if spread else LEAST_PASSES + 1))
    assert 0.03 <= found < 0.06
