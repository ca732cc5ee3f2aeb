"""Benchmarks of generated texts: decoding in slots beside transformers' `generate`.

Run `pytest benchmarks -m harness -k generation -s`. The environment variable HARNESS_GSM8K names a
folder with GSM8K's splits (the hub otherwise), HARNESS_ROWS the number of test problems (all).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import need_gpu

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS = int(os.environ.get("HARNESS_ROWS", "1319"))
GSM8K = os.environ.get("HARNESS_GSM8K", "openai/gsm8k")
TRAINED = ["data.train=960", "data.validation=20", f"data.test={ROWS}"]
STEPS, ROUNDS = 30, 3
Texts = list[Sequence[int]]


class Trained:
    """SmolLM2 after some steps on GSM8K, and the prompts of its test set, the longest first."""

    def __init__(self, method: str, device: str, settings: Sequence[str], folder: Path) -> None:
        from pace import Setup
        from peft_methods.data import synthetic
        from peft_methods.tasks.lm_encoding import Encoder
        from peft_methods.tasks.registry import TASKS

        source = [] if GSM8K == "openai/gsm8k" else [f"data.source={GSM8K}", "data.config="]
        given = ["model.source=bundled:smollm2", *TRAINED, *source, *settings]
        self.setup = Setup("gsm8k_sft", method, given, device)
        self.recipe, self.device = self.setup.recipe, device
        if device == "cuda":
            self.setup.by_engine("trainer", folder, STEPS, 1)
        self.model = self.setup.model.eval()
        table = synthetic.load(self.recipe, TASKS["causal_lm"]).splits["test"]
        cut = self.recipe.data.max_length - 1
        prompts = Encoder(self.setup.base.tokenizer, GSM8K).prompts(table)
        self.prompts = [ids[:cut] for ids in prompts]
        self.order = np.argsort([len(ids) for ids in self.prompts])[::-1].tolist()

    def texts(
        self, write: Callable[..., Texts], size: int | None = None, rows: int | None = None
    ) -> tuple[Texts, float, int]:
        """Return the texts of the first rows, the seconds for them, and the peak memory."""
        import torch

        from pace import cudnn_attention
        from peft_methods.training.precision import autocast

        budget = self.recipe.budget
        recipe = self.recipe
        if size is not None:
            recipe = replace(recipe, budget=replace(budget, evaluation_batch_size=size))
        on_gpu = self.device == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        # cuDNN would plan for each length of a text; runs have it off, and so has the comparison.
        plain = cudnn_attention(on=False)
        with plain, autocast(torch.device(self.device), budget.precision):
            found = write(
                self.model, self.setup.base.tokenizer, self.prompts, self.order[:rows], recipe
            )
        seconds = time.perf_counter() - began
        texts = [_until_end(found[row], self.ends) for row in self.order[:rows]]
        return texts, seconds, torch.cuda.max_memory_allocated() if on_gpu else 0

    @property
    def ends(self) -> set[int]:
        """The tokens that end a text."""
        from peft_methods.tasks.generation import end_tokens

        return set(end_tokens(self.model, self.setup.base.tokenizer))


def _until_end(ids: Sequence[int], ends: set[int]) -> Sequence[int]:
    """Return a text without what follows its end."""
    stop = next((place + 1 for place, one in enumerate(ids) if one in ends), len(ids))
    return list(ids[:stop])


def _share(one: Texts, other: Texts) -> float:
    return statistics.fmean(list(a) == list(b) for a, b in zip(one, other, strict=True))


def _rate(texts: Texts, seconds: float) -> float:
    return sum(map(len, texts)) / seconds


@pytest.mark.harness
@pytest.mark.gpu
@pytest.mark.parametrize("method", ["lora", "full", "qlora"])
def test_generation_against_padded_batches(method: str, benchmark: Any, tmp_path: Path) -> None:
    """Measure generated tokens per second on GSM8K's test set, bf16, and the share of equal texts.

    Compares slots with `model.generate` over padded batches of the recipe's evaluation batch size,
    and with `generate` in batches of another size on the first two batches: rounding alone.
    """
    need_gpu()
    from peft_methods.tasks.generation import in_batches, in_slots

    trained = Trained(method, "cuda", [], tmp_path)
    size = trained.recipe.budget.evaluation_batch_size
    few = 2 * size
    trained.texts(in_batches, rows=8)  # loads kernels
    ours: list[float] = []
    peaks: dict[str, int] = {}

    def measure() -> tuple[Texts, Texts, float]:
        rounds: list[Texts] = []
        for _ in range(ROUNDS):
            texts, seconds, peaks["slots"] = trained.texts(in_slots)
            ours.append(_rate(texts, seconds))
            rounds.append(texts)
            print(f"{method}: slots {ours[-1]:,.0f} tokens/s in {seconds:.1f} s", flush=True)
        assert all(one == texts for one in rounds), "slots repeat their texts"
        others, seconds, peaks["batches"] = trained.texts(in_batches)
        return texts, others, _rate(others, seconds)

    texts, others, theirs = benchmark.pedantic(measure, rounds=1)
    floor = _share(trained.texts(in_batches, size * 3 // 4, few)[0], others[:few])
    ratio, equal = statistics.median(ours) / theirs, _share(texts, others)
    benchmark.extra_info.update(slots=ours, batches=theirs, ratio=ratio, equal=equal, floor=floor)
    print(
        f"{method}: {len(texts):,} texts of {np.mean(list(map(len, texts))):.0f} tokens; slots "
        f"{statistics.median(ours):,.0f} tokens/s (first {ours[0]:,.0f}), batches "
        f"{theirs:,.0f}: {ratio:.1f}x; peak {peaks['slots'] >> 20:,} and "
        f"{peaks['batches'] >> 20:,} MiB; {equal:.1%} of the texts are equal (first {few}: "
        f"{_share(texts[:few], others[:few]):.1%}, batches of {size} and {size * 3 // 4}: "
        f"{floor:.1%})"
    )


@pytest.mark.harness
@pytest.mark.gpu
def test_generation_with_the_static_cache_of_transformers(benchmark: Any, tmp_path: Path) -> None:
    """Measure `generate` with its own static cache, which compiles its steps, on two batches.

    The first time, with compilation, is left out.
    """
    need_gpu()
    from peft_methods.tasks.generation import in_batches, in_slots

    trained = Trained("lora", "cuda", [], tmp_path)
    rows = 2 * trained.recipe.budget.evaluation_batch_size
    found: dict[str, float] = {}

    def static(model: Any, *arguments: Any) -> Texts:
        model.generate = partial(model.generate, cache_implementation="static")
        try:
            return in_batches(model, *arguments)
        finally:
            del model.generate

    def measure() -> None:
        for name, write in (("slots", in_slots), ("static", static), ("batches", in_batches)):
            trained.texts(write, rows=rows)
            texts, seconds, _ = trained.texts(write, rows=rows)
            found[name] = _rate(texts, seconds)
            print(f"{name} {found[name]:,.0f} tokens/s", flush=True)

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info.update(found)


@pytest.mark.harness
def test_generation_on_a_cpu(benchmark: Any, tmp_path: Path) -> None:
    """Measure generated tokens per second on a CPU, fp32, in pairs of rounds, texts being equal."""
    from peft_methods.tasks.generation import in_batches, in_slots

    settings = [
        *("budget.precision=fp32", "data.test=24", "data.max_new_tokens=48"),
        "budget.evaluation_batch_size=8",
    ]
    trained = Trained("lora", "cpu", settings, tmp_path)
    ratios: list[float] = []

    def pair() -> None:
        ours, seconds, _ = trained.texts(in_slots)
        theirs, others, _ = trained.texts(in_batches)
        assert ours == theirs
        ratios.append(others / seconds)

    benchmark.pedantic(pair, rounds=ROUNDS)
    benchmark.extra_info.update(ratios=ratios)
    print(
        f"slots are {statistics.median(ratios):.2f}x as fast as batches, {min(ratios):.2f} to "
        f"{max(ratios):.2f}"
    )
