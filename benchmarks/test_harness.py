"""What the harness itself costs, side by side in one run: `pytest benchmarks -m harness`."""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

PAIRS = 3
MEASURING_PAIRS = 12


class _Clock:
    """A listener that sums the time of the training phase."""

    def __init__(self) -> None:
        self.seconds, self._since = 0.0, None
        self.synchronize: Any = lambda: None

    def enter(self, phase: str) -> None:
        self.synchronize()
        now = time.perf_counter()
        if self._since is not None:
            self.seconds += now - self._since
        self._since = now if phase == "train" else None

    def step(self, epoch: int, step: int, steps: int) -> None:
        pass

    def epoch(self, result: Any) -> None:
        pass

    def worst_step(self, model: Any, optimizer: Any) -> Any:
        from peft_methods.engines.base import NoTrace

        return nullcontext(NoTrace())


def _loaded(method_name: str, *settings: str, device: str = "cpu") -> Any:
    from transformers import set_seed

    from peft_methods import data, models
    from peft_methods.cells import chosen_methods
    from peft_methods.methods import Task
    from peft_methods.recipe import load_recipe

    recipe = load_recipe("embedded", ["budget.epochs=1", "data.validation=2", *settings])
    method = chosen_methods(recipe, [method_name])[0]
    set_seed(0)
    texts = data.load(recipe.data)
    base = models.load(recipe.model, texts.facts.label_names, device=device)
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

    from peft_methods.engines.batches import Collator

    recipe, method, base, model, tokens = _loaded(method_name)
    size = recipe.budget.batch_size
    order = list(LengthGroupedSampler(size, lengths=tokens.train.lengths, generator=torch.Generator().manual_seed(0)))
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


def _train_seconds(method_name: str, folder: Path, *, instruments: bool) -> float:
    """Training time of one cell by one clock, with everything that is read off a cell or with nothing."""
    import torch

    from peft_methods.engines import stock
    from peft_methods.environment import find_device
    from peft_methods.instruments import Instruments

    device = find_device()
    recipe, method, base, model, tokens = _loaded(method_name, "data.train=1600", "budget.precision=bf16", device=device)
    reader = Instruments(device, lambda news: None, epochs=1)
    clock = _Both(reader) if instruments else _Clock()
    clock.synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    with reader.running() if instruments else nullcontext():
        own = {"head": base.head, "seed": 0, "device": device, "workdir": folder, "listener": clock}
        stock.train(model, method, tokens, recipe, base.tokenizer, **own)
    return clock.seconds


class _Both(_Clock):
    """A clock beside the instruments."""

    def __init__(self, reader: Any) -> None:
        super().__init__()
        self.reader = reader

    def enter(self, phase: str) -> None:
        super().enter("other")
        self.reader.enter(phase)
        super().enter(phase)

    def step(self, epoch: int, step: int, steps: int) -> None:
        self.reader.step(epoch, step, steps)

    def worst_step(self, model: Any, optimizer: Any) -> Any:
        return self.reader.worst_step(model, optimizer)


@pytest.mark.harness
@pytest.mark.gpu
def test_measuring_costs_nothing(benchmark: Any, tmp_path: Path) -> None:
    """Alternating pairs of one cell with all instruments and with none: the 95 % bound of the difference is 1 % at most."""
    import numpy as np
    from scipy import stats

    from peft_methods.environment import find_device

    if find_device() == "cpu":
        pytest.skip("needs an NVIDIA GPU: a busy CPU's own noise is larger than what is measured here")

    _train_seconds("lora", tmp_path, instruments=True)  # the first of a process is slower than the rest
    seconds: dict[bool, list[float]] = {True: [], False: []}

    def one_pair() -> None:
        for instruments in ((True, False), (False, True))[len(seconds[True]) % 2]:
            seconds[instruments].append(_train_seconds("lora", tmp_path, instruments=instruments))

    benchmark.pedantic(one_pair, rounds=MEASURING_PAIRS, iterations=1)
    difference = np.subtract(seconds[True], seconds[False]) / np.mean(seconds[False])
    bound = difference.mean() + stats.t.ppf(0.95, len(difference) - 1) * stats.sem(difference)
    benchmark.extra_info.update(with_seconds=seconds[True], without_seconds=seconds[False], upper_bound=bound)
    print(f"instruments: {100 * difference.mean():+.2f} % of training time, at most {100 * bound:.2f} % (95 %), {len(difference)} pairs")
    assert bound <= 0.01
