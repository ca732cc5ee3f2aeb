"""A cell that was interrupted goes on from its last epoch and ends as if nothing had happened, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_engines import Recorder, prepared

from peft_methods.cells import cells_of, chosen_methods
from peft_methods.checkpoints import Checkpoints, folder_of
from peft_methods.engines import graphed, stock
from peft_methods.methods import TRAINED
from peft_methods.recipe import load_recipe

SMALL = ("data.train=44", "budget.epochs=3", "budget.batch_size=8")


class Interrupted(Exception):
    pass


class Measuring(Recorder):
    """A listener that measures the number of steps, and may be interrupted at one of them."""

    def __init__(self, until: int | None = None) -> None:
        super().__init__()
        self.until = until

    def step(self, epoch: int, step: int, steps: int) -> None:
        super().step(epoch, step, steps)
        if step == self.until:
            raise Interrupted

    def measured(self) -> dict[str, Any]:
        return {"steps": [step for _, step, _ in self.steps]}

    def take_over(self, measured: dict[str, Any]) -> None:
        self.steps = [(0, step, 0) for step in measured["steps"]]


def trained(recipe_path: Path, root: Path, name: str, *settings: str, kind: Any = stock.StockTrainer, until: Any = None, keep: bool = True) -> Any:
    recipe, method, base, model, tokens = prepared(recipe_path, name, *SMALL, *settings)
    (cell, *_) = cells_of(recipe, method, "cpu")
    keeper = Checkpoints(root, cell, "key") if keep else None
    work = root / "work"
    work.mkdir(parents=True, exist_ok=True)
    listener = Measuring(until)
    own = {"head": base.head, "seed": 0, "device": "cpu", "workdir": work, "listener": listener, "keeper": keeper, "trainer_class": kind}
    training = stock.train(model, method, tokens, recipe, base.tokenizer, **own)
    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    return training, weights, load_file(work / TRAINED), listener.steps, keeper


@pytest.mark.parametrize("kind", [stock.StockTrainer, graphed.GraphedTrainer])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("full", ["budget.gradient_accumulation=2"]),
        ("lora", ["methods.lora.dropout=0.2"]),
        ("qlora", ["methods.qlora.dropout=0.1"]),
        ("ia3", ["budget.padding='fixed'"]),
        ("adapter", ["budget.early_stopping=1", "methods.adapter.learning_rate=0.5"]),
        ("adapter_fusion", []),
    ],
)
def test_an_interrupted_training_ends_like_another(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, name: str, settings: list[str]
) -> None:
    monkeypatch.setattr(graphed.GraphedTrainer, "compile_layers", False)
    whole, weights, best, steps, _ = trained(tiny_recipe, tmp_path / "whole", name, *settings, kind=kind, keep=False)
    with pytest.raises(Interrupted):
        trained(tiny_recipe, tmp_path / "cut", name, *settings, kind=kind, until=whole.steps - 1)
    torch.manual_seed(99)
    again, got, kept, seen, keeper = trained(tiny_recipe, tmp_path / "cut", name, *settings, kind=kind)
    assert again == whole
    assert torch.equal(got, weights)
    assert all(torch.equal(kept[name], best[name]) for name in best)
    assert [step for _, step, _ in seen] == [step for _, step, _ in steps]
    assert keeper.resumed_after == [len(whole.epochs) - 1]
