"""Steps of the cuda_graphs engine, compared one by one with those of the trainer engine.

Without a GPU a step is called directly instead of being replayed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    MPNetConfig,
    RobertaConfig,
    TrainerCallback,
)

from builders import (
    CONFIGS,
    Recorder,
    RejectHostAccess,
    make_trainer,
    mostly_slow,
    prepared,
    train_with_both_engines,
    training_job,
)
from peft_methods.tasks.collate import NO_LABEL, Collator
from peft_methods.training.collate import BucketCollator, length_buckets
from peft_methods.training.cuda_graphs.attention import MASKED, capturable_attention
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.trainer import loop

pytestmark = [
    # The eager step before the captured ones ran on another stream.
    pytest.mark.filterwarnings("ignore:.*AccumulateGrad.*"),
    # Tiny 4-bit layers on a GPU.
    pytest.mark.filterwarnings("ignore:inner dimension.*is not aligned"),
]
METHODS = ("full", "head_only", "bitfit", "lora", "qlora", "ia3", "adapter")


@pytest.mark.parametrize("name", mostly_slow(METHODS, "full", "lora", "qlora"))
def test_captured_steps_agree_with_the_trainer_for_every_method(
    tiny_recipe: Path, tmp_path: Path, name: str
) -> None:
    train_with_both_engines(tiny_recipe, tmp_path, name)


@pytest.mark.parametrize("kind", mostly_slow(["roberta", "mpnet", "distilbert"], "mpnet"))
def test_captured_steps_agree_with_the_trainer_for_every_encoder(
    tiny_recipe: Path, tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    train_with_both_engines(tiny_recipe, tmp_path, "lora", f"model.source={tiny_models[kind]}")


def test_capturable_attention_creates_tensors_on_the_models_device() -> None:
    """MPNet's attention is built in and creates its positions in each step.

    A captured step cannot copy them from the host.
    """
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


def test_capturable_attention_of_a_cpu_model_ignores_the_gpu(
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
        # The last step has one batch of one row.
        ("data.train=157", "budget.batch_size=4", "budget.gradient_accumulation=3"),
        ("budget.padding=fixed",),
        ("budget.max_grad_norm=0.05", "budget.weight_decay=0.3"),
        ("budget.schedule=cosine", "methods.lora.head_learning_rate=1e-3"),
        ("budget.gradient_checkpointing=true",),
    ],
    ids=",".join,
)
def test_captured_steps_agree_with_the_trainer_for_every_setting(
    tiny_recipe: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    train_with_both_engines(tiny_recipe, tmp_path, "lora", *settings)


def uncompiled(
    recipe_path: Path, folder: Path, name: str, *settings: str
) -> tuple[CudaGraphsTrainer, nn.Module]:
    ready = prepared(recipe_path, name, *settings)
    model = ready[3]
    trainer = make_trainer(ready, folder, kind=CudaGraphsTrainer)
    trainer.compile_layers = False
    return trainer, model


def test_capture_reports_the_tensors_that_the_engine_keeps(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """They are half of the bytes of the frozen linear layers in full precision."""
    trainer, model = uncompiled(tiny_recipe, tmp_path, "lora", "budget.precision=bf16")
    trainer.create_optimizer()
    trainer.capture()
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    frozen = [
        p for module in linear for p in module.parameters(recurse=False) if not p.requires_grad
    ]
    assert trainer.observer.kept == sum(p.nbytes for p in frozen) / 2 > 0


def test_capture_does_not_change_weights_optimizer_or_random_state(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    trainer, model = uncompiled(tiny_recipe, tmp_path, "full")
    optimizer = trainer.create_optimizer()
    before, random_state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    trainer.capture()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(not tensor.any() for state in optimizer.state.values() for tensor in state.values())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", [loop.RunTrainer, CudaGraphsTrainer])
def test_peak_step_includes_the_optimizer_state(
    tiny_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[loop.RunTrainer],
) -> None:
    """Without it the peak would be too low by twice the trained weights."""
    monkeypatch.setattr(CudaGraphsTrainer, "compile_layers", False)
    ready = prepared(tiny_recipe, "full", "budget.epochs=1")
    seen: list[int] = []

    class Watching(Recorder):
        def peak_step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
            seen.append(sum(state["exp_avg_sq"].numel() for state in optimizer.state.values()))
            return super().peak_step(model, optimizer)

    loop.train(training_job(ready, tmp_path), Watching(), trainer_class=kind)
    assert seen == [sum(p.numel() for p in ready[3].parameters())]


def test_capture_keeps_the_optimizer_state_of_a_checkpoint(
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


def test_captured_steps_support_callbacks_and_logs(tiny_recipe: Path, tmp_path: Path) -> None:
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


def test_buckets_are_few_and_fit_every_row() -> None:
    assert length_buckets([3, 500, 512]) == tuple(range(32, 513, 32))
    assert length_buckets([400, 500]) == (416, 448, 480, 500)
    assert length_buckets([5, 60]) == (8, 16, 24, 32, 40, 48, 56, 60)
    assert length_buckets([7]) == (7,)
    assert length_buckets([5, 60], fixed=128) == (128,)


def test_bucket_collator_fills_a_short_batch_with_unlabelled_rows(tiny_recipe: Path) -> None:
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


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_encoder_never_accesses_the_host_while_it_is_captured(kind: str) -> None:
    model = AutoModelForSequenceClassification.from_config(CONFIGS[kind]()).eval()
    batch = {
        "input_ids": torch.randint(5, 20, (3, 7)),
        "attention_mask": torch.ones(3, 7, dtype=torch.long),
    }
    for lengths in ((7, 7, 7), (7, 4, 1)):
        batch["attention_mask"] = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
        expected = model(**batch).logits
        with capturable_attention(model, "fp32"), RejectHostAccess():
            got = model(**batch).logits
        assert torch.allclose(got, expected, atol=1e-6)
