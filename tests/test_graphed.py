"""The graphed engine's steps against the stock Trainer's, one by one. Without a GPU a step is called where it would be replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import (
    AutoModelForSequenceClassification,
    MPNetConfig,
    RobertaConfig,
    TrainerCallback,
)

from builders import CONFIGS, Recorder, prepared
from builders import train_with_both_engines as both
from peft_methods.engines import graphed, stock
from peft_methods.engines.attention import MASKED, capturable_attention
from peft_methods.engines.batches import NO_LABEL, BucketCollator, Collator, buckets_of

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*AccumulateGrad.*"
    ),  # the eager step before it ran on another stream
    pytest.mark.filterwarnings(
        "ignore:inner dimension.*is not aligned"
    ),  # 4-bit layers as tiny as these, on a GPU
]
METHODS = ("full", "head_only", "bitfit", "lora", "qlora", "ia3", "adapter")


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_losses_are_the_stock_trainers(
    tiny_recipe: Path, tmp_path: Path, name: str
) -> None:
    both(tiny_recipe, tmp_path, name)


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "distilbert"])
def test_every_encoders_losses_are_the_stock_trainers(
    tiny_recipe: Path, tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    both(tiny_recipe, tmp_path, "lora", f"model.source={tiny_models[kind]}")


def test_what_an_encoder_makes_while_it_is_captured_is_on_its_device() -> None:
    """MPNet's attention is its own and makes its positions anew in each step: a captured one cannot copy them from the host."""
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    for config, where in ((MPNetConfig(**sizes), "meta"), (RobertaConfig(**sizes), "cpu")):
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
        with capturable_attention(model, "fp32"):
            assert torch.arange(3).device.type == where
        assert torch.arange(3).device.type == "cpu"


def test_a_model_on_the_host_gets_no_kernel_of_the_gpu_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(RobertaConfig(num_hidden_layers=1))
    with capturable_attention(model, "bf16") as name:
        assert name == MASKED


@pytest.mark.parametrize(
    "settings",
    [
        ("data.train=157",),  # the last batch has five rows
        (
            "data.train=157",
            "budget.batch_size=4",
            "budget.gradient_accumulation=3",
        ),  # the last step one batch of one row
        ("budget.padding=fixed",),
        ("budget.max_grad_norm=0.05", "budget.weight_decay=0.3"),
        ("budget.schedule=cosine", "methods.lora.head_learning_rate=1e-3"),
        ("budget.gradient_checkpointing=true",),
    ],
    ids=",".join,
)
def test_each_part_of_a_step_means_what_it_means_there(
    tiny_recipe: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    both(tiny_recipe, tmp_path, "lora", *settings)


def uncompiled(
    recipe_path: Path, folder: Path, name: str, *settings: str
) -> tuple[graphed.GraphedTrainer, nn.Module]:
    recipe, method, base, model, tokens = prepared(recipe_path, name, *settings)
    arguments = stock.arguments_of(recipe, method, 0, "cpu", folder, autocast=False)
    own = {"budget": recipe.budget, "listener": Recorder()}
    trainer = graphed.GraphedTrainer(
        method, base.head, model, arguments, Collator(base.tokenizer), tokens.train, **own
    )
    trainer.compile_layers = False
    return trainer, model


def test_what_the_engine_keeps_is_told(tiny_recipe: Path, tmp_path: Path) -> None:
    """Half of the frozen linear maps' bytes in full precision: no part of what judging takes."""
    trainer, model = uncompiled(tiny_recipe, tmp_path, "lora", "budget.precision=bf16")
    trainer.create_optimizer()
    trainer.capture()
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    frozen = [
        p for module in linear for p in module.parameters(recurse=False) if not p.requires_grad
    ]
    assert trainer.listener.kept == sum(p.nbytes for p in frozen) / 2 > 0


def test_capturing_leaves_no_trace(tiny_recipe: Path, tmp_path: Path) -> None:
    """Weights, optimizer state and random numbers are those of a run that captured nothing."""
    trainer, model = uncompiled(tiny_recipe, tmp_path, "full")
    optimizer = trainer.create_optimizer()
    before, drawn = [p.clone() for p in model.parameters()], torch.get_rng_state()
    trainer.capture()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(not tensor.any() for state in optimizer.state.values() for tensor in state.values())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", [stock.StockTrainer, graphed.GraphedTrainer])
def test_the_worst_step_has_the_optimizers_state_in_place(
    tiny_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[stock.StockTrainer],
) -> None:
    """Else the peak would be understated by twice the trained weights."""
    monkeypatch.setattr(graphed.GraphedTrainer, "compile_layers", False)
    recipe, method, base, model, tokens = prepared(tiny_recipe, "full", "budget.epochs=1")
    seen: list[int] = []

    class Watching(Recorder):
        def worst_step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
            seen.append(sum(state["exp_avg_sq"].numel() for state in optimizer.state.values()))
            return super().worst_step(model, optimizer)

    own = {
        "head": base.head,
        "seed": 0,
        "device": "cpu",
        "workdir": tmp_path,
        "listener": Watching(),
        "trainer_class": kind,
    }
    stock.train(model, method, tokens, recipe, base.tokenizer, **own)
    assert seen == [sum(p.numel() for p in model.parameters())]


def test_a_checkpoints_optimizer_state_survives_capturing(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    trainer, _ = uncompiled(tiny_recipe, tmp_path, "lora")
    optimizer = trainer.create_optimizer()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.tensor(7.0),
                "exp_avg": torch.rand_like(parameter),
                "exp_avg_sq": torch.rand_like(parameter),
            }
    before = {
        p: {k: (v, v.clone()) for k, v in state.items()} for p, state in optimizer.state.items()
    }
    trainer.capture()
    for parameter, state in before.items():
        for name, (tensor, value) in state.items():
            assert optimizer.state[parameter][name] is tensor
            assert torch.equal(tensor, value)


def test_callbacks_and_logs_see_what_they_see_there(tiny_recipe: Path, tmp_path: Path) -> None:
    trainer, _ = uncompiled(tiny_recipe, tmp_path, "lora")
    trainer.args.logging_strategy, trainer.args.logging_steps = "steps", 10

    class StopsAt30(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop |= state.global_step == 30

    trainer.add_callback(StopsAt30())
    trainer.train()
    logs = [log for log in trainer.state.log_history if "grad_norm" in log]
    assert [log["step"] for log in logs] == [10, 20, 30]
    assert all(log["loss"] > 0 and log["grad_norm"] > 0 for log in logs)
    assert trainer.state.global_step == 30


def test_buckets_are_few_and_hold_every_row() -> None:
    assert buckets_of([3, 500, 512]) == tuple(range(32, 513, 32))
    assert buckets_of([400, 500]) == (416, 448, 480, 500)
    assert buckets_of([5, 60]) == (8, 16, 24, 32, 40, 48, 56, 60)
    assert buckets_of([7]) == (7,)
    assert buckets_of([5, 60], fixed=128) == (128,)


def test_a_short_batch_is_filled_with_rows_that_do_not_count(tiny_recipe: Path) -> None:
    _, _, base, _, tokens = prepared(tiny_recipe, "full")
    rows = [tokens.train[row] for row in range(3)]
    batch = BucketCollator(Collator(base.tokenizer), 8, (8, 16))(rows)
    assert batch["rows"] == 3
    assert batch["labels"].tolist() == [row["labels"] for row in rows] + [NO_LABEL] * 5
    assert (
        batch["input_ids"].shape
        == batch["attention_mask"].shape
        == (8, 16 if max(tokens.train.lengths[:3]) > 8 else 8)
    )
    assert batch["attention_mask"].sum(1).tolist() == tokens.train.lengths[:3] + [1] * 5


class TouchesTheHost(TorchFunctionMode):
    """Refuses what a captured step cannot do: numbers from the host, and looks at numbers of the device."""

    REFUSED = (
        torch.tensor,
        torch.as_tensor,
        torch.Tensor.item,
        torch.Tensor.tolist,
        torch.Tensor.__bool__,
        torch.Tensor.cpu,
    )

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        assert function not in self.REFUSED, f"{function} within a captured step"
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_no_encoder_asks_the_host_while_it_is_captured(kind: str) -> None:
    model = AutoModelForSequenceClassification.from_config(CONFIGS[kind]()).eval()
    batch = {
        "input_ids": torch.randint(5, 20, (3, 7)),
        "attention_mask": torch.ones(3, 7, dtype=torch.long),
    }
    for lengths in ((7, 7, 7), (7, 4, 1)):
        batch["attention_mask"] = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
        expected = model(**batch).logits
        with capturable_attention(model, "fp32"), TouchesTheHost():
            got = model(**batch).logits
        assert torch.allclose(got, expected, atol=1e-6)
