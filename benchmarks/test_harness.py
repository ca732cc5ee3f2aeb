"""What the harness itself costs, side by side in one run: `pytest benchmarks -m harness`."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest

PAIRS = 3


class _Clock:
    """A listener that sums the time of the training phase."""

    def __init__(self) -> None:
        self.seconds, self._since = 0.0, None

    def enter(self, phase: str) -> None:
        now = time.perf_counter()
        if self._since is not None:
            self.seconds += now - self._since
        self._since = now if phase == "train" else None

    def step(self, epoch: int, step: int, steps: int) -> None:
        pass

    def epoch(self, result: Any) -> None:
        pass


def _loaded(method_name: str) -> Any:
    from transformers import set_seed

    from peft_methods import data, models
    from peft_methods.cells import chosen_methods
    from peft_methods.methods import Task
    from peft_methods.recipe import load_recipe

    recipe = load_recipe("embedded", ["budget.epochs=1", "data.validation=2"])
    method = chosen_methods(recipe, [method_name])[0]
    set_seed(0)
    texts = data.load(recipe.data)
    base = models.load(recipe.model, texts.facts.label_names)
    model = method.inject(base.model, Task(base.shape, base.head))
    return recipe, method, base, model, data.tokenize(texts, base.tokenizer, recipe.data.max_length)


def _engine_seconds(method_name: str, folder: Path) -> float:
    """Training steps of one epoch through the stock engine."""
    from peft_methods.engines import stock

    recipe, method, base, model, tokens = _loaded(method_name)
    clock = _Clock()
    stock.train(model, method, tokens, recipe, base.tokenizer, head=base.head, seed=0, device="cpu", workdir=folder, listener=clock)
    return clock.seconds


def _bare_seconds(method_name: str) -> float:
    """The same batches in a loop of ten lines: what no harness could undercut without other kernels."""
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    from peft_methods.engines.base import Collator

    recipe, method, base, model, tokens = _loaded(method_name)
    size = recipe.budget.batch_size
    order = list(LengthGroupedSampler(size, lengths=list(tokens.train["length"]), generator=torch.Generator().manual_seed(0)))
    batches = [Collator(base.tokenizer)([tokens.train[row] for row in order[i : i + size]]) for i in range(0, len(order), size)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=method.learning_rate, fused=True)
    model.train()
    started = time.perf_counter()
    for batch in batches:
        labels = batch.pop("labels")
        torch.nn.functional.cross_entropy(model(**batch).logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - started


@pytest.mark.harness
@pytest.mark.parametrize("method_name", ["full", "lora"])
def test_engine_against_a_bare_loop(method_name: str, benchmark: Any, tmp_path: Path) -> None:
    """Alternating pairs on the embedded recipe; the ratio of medians stands in extra_info."""
    _bare_seconds(method_name)  # the first of a process is slower than the rest
    bare: list[float] = []
    engine: list[float] = []

    def one_pair() -> None:
        bare.append(_bare_seconds(method_name))
        engine.append(_engine_seconds(method_name, tmp_path))

    benchmark.pedantic(one_pair, rounds=PAIRS, iterations=1)
    ratio = statistics.median(engine) / statistics.median(bare)
    benchmark.extra_info.update(bare_seconds=bare, engine_seconds=engine, ratio=ratio)
    print(f"{method_name}: engine {statistics.median(engine):.1f} s, bare loop {statistics.median(bare):.1f} s, ratio {ratio:.2f}")
