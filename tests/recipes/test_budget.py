"""The budget's settings on a real Trainer: each has its effect and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builders import (
    TASK,
    Recorder,
    make_trainer,
    mostly_slow,
    prepared,
    training_job,
    without_dropout,
)
from peft_methods.models import loading
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import Budget
from peft_methods.runs.plan import run_groups
from peft_methods.tasks.collate import Collator
from peft_methods.training.activation_checkpointing import checkpointing
from peft_methods.training.engine import EpochResult, Training, check_budget
from peft_methods.training.evaluation import EpochEvaluator, predict
from peft_methods.training.trainer import loop, warm_up
from peft_methods.utils.errors import ModelError, OptionError

METHODS = ("full", "head_only", "bitfit", "lora", "qlora", "ia3", "adapter", "adapter_fusion")


def trained(
    recipe_path: Path, folder: Path, name: str, *settings: str, dropout: bool = True
) -> tuple[Training, nn.Module, Recorder, Any]:
    """Train a method, optionally without any dropout.

    Returns the training result, the model, the observer, and (token data, base model).
    """
    ready = _, _, base, model, tokens = prepared(recipe_path, name, *settings)
    if not dropout:
        without_dropout(model)
    recorder = Recorder()
    training = loop.train(training_job(ready, folder), recorder)
    return training, model, recorder, (tokens, base)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("rows", [160, 157, 151])
def test_gradient_accumulation_trains_like_one_large_batch(
    tiny_recipe: Path, tmp_path: Path, rows: int
) -> None:
    """Also if the last step of an epoch has only one batch, or a short one."""
    common = (f"data.train={rows}", "methods.lora.learning_rate=1e-2")
    whole, one, _, _ = trained(tiny_recipe, tmp_path, "lora", *common, dropout=False)
    parts, other, recorder, _ = trained(
        tiny_recipe,
        tmp_path,
        "lora",
        *common,
        "budget.batch_size=4",
        "budget.gradient_accumulation=2",
        dropout=False,
    )
    assert torch.allclose(weights(one), weights(other), atol=2e-5)
    assert [e.train_loss for e in parts.epochs] == pytest.approx(
        [e.train_loss for e in whole.epochs], abs=1e-5
    )
    firsts = [[epoch.first_loss for epoch in one.epochs] for one in (parts, whole)]
    assert firsts[0] == pytest.approx(firsts[1], abs=1e-4)
    assert (parts.steps, parts.samples, parts.tokens) == (whole.steps, whole.samples, whole.tokens)
    assert parts.decay == pytest.approx(whole.decay)
    assert recorder.steps[-1] == (2, whole.steps, whole.steps)


class GradientInspector(Recorder):
    """An observer that inspects the gradients when the peak step begins."""

    def peak_step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        trained = [p for p in model.parameters() if p.requires_grad]
        self.in_place = [p.grad is not None for p in trained]
        self.zero = not any(p.grad.any() for p in trained if p.grad is not None)
        self.states = len(optimizer.state)
        return super().peak_step(model, optimizer)


@pytest.mark.parametrize(("accumulation", "in_place"), [(1, False), (3, True)])
def test_peak_step_includes_gradients_of_earlier_batches(
    tiny_recipe: Path, tmp_path: Path, accumulation: int, in_place: bool
) -> None:
    """Gradients exist from the second accumulated batch on, and take memory from then on."""
    ready = _, _, base, model, _ = prepared(
        tiny_recipe, "full", f"budget.gradient_accumulation={accumulation}"
    )
    trainer = make_trainer(ready, tmp_path)
    before, seen = weights(model), GradientInspector()
    warm_up.warm_up(trainer, Collator(base.tokenizer), seen)
    assert set(seen.in_place) == {in_place}
    assert seen.zero
    assert seen.states == len(seen.in_place)
    assert torch.equal(weights(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_warm_up_changes_nothing_with_gradient_accumulation(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it, one, _, _ = trained(tiny_recipe, tmp_path, "lora", "budget.gradient_accumulation=2")
    monkeypatch.setattr(loop, "warm_up", lambda *_: None)
    without, other, _, _ = trained(tiny_recipe, tmp_path, "lora", "budget.gradient_accumulation=2")
    assert with_it.epochs == without.epochs
    assert torch.equal(weights(one), weights(other))


def test_weight_decay_is_applied_per_step_not_per_batch(tiny_recipe: Path, tmp_path: Path) -> None:
    settings = (
        "budget.schedule=constant",
        "budget.warmup_ratio=0.0",
        "budget.gradient_accumulation=5",
        "budget.epochs=1",
    )
    training, _, _, _ = trained(tiny_recipe, tmp_path, "lora", *settings)
    assert training.steps == 4
    assert training.decay == pytest.approx([(1 - 5e-2 * 0.01) ** 4] * len(training.decay))


@pytest.mark.parametrize("name", mostly_slow(METHODS, "full", "lora"))
def test_gradient_checkpointing_trains_identically(
    tiny_recipe: Path, tmp_path: Path, name: str
) -> None:
    """Including dropout: the recomputation draws the same random numbers."""
    plain, one, _, _ = trained(tiny_recipe, tmp_path, name, "budget.epochs=1")
    again, other, _, _ = trained(
        tiny_recipe, tmp_path, name, "budget.epochs=1", "budget.gradient_checkpointing=true"
    )
    assert again.epochs == plain.epochs
    assert torch.equal(weights(one), weights(other))
    assert not [
        layer
        for layer in other.modules()
        if "forward" in vars(layer) and type(layer).__name__.endswith("Layer")
    ]


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "distilbert"])
def test_gradient_checkpointing_saves_less_for_the_backward_pass(
    tiny_recipe: Path, tiny_models: dict[str, Path], kind: str
) -> None:
    """In every family, including MPNet, for which transformers has no checkpointing."""
    _, _, base, model, tokens = prepared(tiny_recipe, "lora", f'model.source="{tiny_models[kind]}"')
    batch = Collator(base.tokenizer)([tokens.train[row] for row in range(8)])
    batch.pop("labels")
    kept = {on: saved_bytes(model, batch, on) for on in (False, True)}
    assert kept[True] < 0.5 * kept[False]


def saved_bytes(model: nn.Module, batch: dict[str, torch.Tensor], on: bool) -> int:
    """Return the size of all tensors saved for the backward pass."""
    sizes: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    model.train()
    with (
        checkpointing(model, on=on),
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
    ):
        model(**batch).logits.sum()
    parameters = {p.data_ptr() for p in model.parameters()}
    return sum(size for place, size in sizes.items() if place not in parameters)


def test_fixed_padding_pads_every_batch_to_max_length_and_shuffles(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[int]]] = []
    collate = Collator.__call__

    def watch(self: Collator, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collate(self, rows)
        seen.append((batch["input_ids"].shape[1], [len(row["input_ids"]) for row in rows]))
        return batch

    monkeypatch.setattr(Collator, "__call__", watch)
    dynamic, _, _, _ = trained(tiny_recipe, tmp_path, "lora", "budget.epochs=1")
    assert all(width == max(lengths) for width, lengths in seen)
    spreads = [max(lengths) - min(lengths) for _, lengths in seen[1:21]]
    seen.clear()
    fixed, _, _, (tokens, _) = trained(
        tiny_recipe, tmp_path, "lora", "budget.epochs=1", "budget.padding=fixed"
    )
    assert {width for width, _ in seen} == {16}
    assert (
        sorted(seen[0][1]) == sorted(tokens.train.lengths)[-8:]
    )  # the warm-up still uses the longest rows
    assert sum(spreads) < sum(max(lengths) - min(lengths) for _, lengths in seen[1:21])
    assert (fixed.steps, fixed.samples, fixed.tokens) == (
        dynamic.steps,
        dynamic.samples,
        dynamic.tokens,
    )


def test_padding_does_not_change_predictions(tiny_recipe: Path) -> None:
    _, _, base, model, tokens = prepared(tiny_recipe, "full")
    short, long = (
        predict(TASK, model, tokens.test, Collator(base.tokenizer, length), 8)
        for length in (None, 40)
    )
    assert abs(short.logits - long.logits).max() < 1e-5


def test_fixed_padding_shuffles_by_the_seed_only(tiny_recipe: Path, tmp_path: Path) -> None:
    orders = []
    for name, seed in (("full", 0), ("lora", 0), ("lora", 1)):
        ready = _, _, _base, _model, _ = prepared(tiny_recipe, name, "budget.padding=fixed")
        trainer = make_trainer(ready, tmp_path, seed=seed)
        torch.rand(seed * 7 + len(name))
        orders.append((list(trainer._get_train_sampler()), list(trainer._get_train_sampler())))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1]
    assert sorted(orders[0][0]) == list(range(160))


def test_early_stopping_ends_training_and_keeps_the_best_epoch(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    settings = (
        "budget.epochs=30",
        "budget.early_stopping=2",
        "methods.full.learning_rate=2e-2",
        "budget.schedule=constant",
    )
    training, model, recorder, (tokens, base) = trained(tiny_recipe, tmp_path, "full", *settings)
    ran = len(training.epochs)
    assert ran < 30
    selections = [epoch.selection for epoch in training.epochs]
    assert max(selections[:-2]) >= max(selections[-2:])  # two epochs without a rise, and no more
    assert max(selections[: ran - 3], default=-1.0) < selections[ran - 3]
    assert (training.steps, training.samples) == (20 * ran, 160 * ran)
    assert training.tokens == ran * sum(tokens.train.lengths)
    assert recorder.steps[-1] == (ran, 20 * ran, 600)
    assert recorder.phases.count("train") == ran == len(recorder.epochs)
    evaluated = TASK.evaluate(
        predict(TASK, model, tokens.validation, Collator(base.tokenizer), 8),
        tokens.facts.label_names,
    )
    assert (
        evaluated.scores["accuracy"]
        == training.epochs[training.best_epoch - 1].validation_accuracy
        == max(selections)
    )


def test_training_without_early_stopping_runs_every_epoch(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    training, _, _, _ = trained(
        tiny_recipe,
        tmp_path,
        "head_only",
        "budget.epochs=4",
        "methods.head_only.learning_rate=1e-30",
    )
    assert [epoch.epoch for epoch in training.epochs] == [1, 2, 3, 4]
    assert len({epoch.selection for epoch in training.epochs}) == 1


@pytest.mark.parametrize(
    ("selections", "patience", "ends"),
    [
        ([0.5, 0.5, 0.5], 2, 3),
        ([0.5, 0.6, 0.5, 0.55], 2, 4),
        ([0.5, 0.4, 0.6, 0.5], 2, None),
        ([0.5, 0.4], 1, 2),
        ([0.5, 0.4], 0, None),
    ],
)
def test_early_stopping_ends_after_the_given_epochs_without_a_rise(
    selections: list[float], patience: int, ends: int | None, tiny_recipe: Path
) -> None:
    recipe = load_recipe(str(tiny_recipe), [f"budget.early_stopping={patience}"])
    evaluator = EpochEvaluator(None, None, recipe, None, None, best=Path())  # type: ignore[arg-type]
    spent = [
        evaluator._should_stop_early(EpochResult(epoch, 0.0, 0.0, 0.0, value))
        for epoch, value in enumerate(selections, 1)
    ]
    assert spent.index(True) + 1 == ends if ends else not any(spent)


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_tasks_of_refuses_a_gpu_precision_without_a_gpu(tiny_recipe: Path, precision: str) -> None:
    recipe = load_recipe(str(tiny_recipe), [f"budget.precision={precision}"])
    with pytest.raises(
        OptionError,
        match=rf"'{precision}' needs an NVIDIA GPU and none is visible\. Allowed here: fp32, bf16",
    ):
        run_groups([recipe], ["full"], "cpu")
    assert run_groups([recipe], ["full"], "cuda")
    assert run_groups([replace(recipe, gpu=True)], ["full"], "cpu")  # skipped with its reason


def test_training_sets_tf32_in_both_settings_of_torch(tiny_recipe: Path, tmp_path: Path) -> None:
    """transformers sets only one of torch's two settings.

    Reading the other then raises an error, and the compiled step could not be captured.
    """
    for precision, expected in (("tf32", "high"), ("fp32", "highest")):
        trained(
            tiny_recipe,
            tmp_path / precision,
            "head_only",
            f"budget.precision={precision}",
            "budget.epochs=1",
        )
        assert torch.get_float32_matmul_precision() == expected
        assert torch.backends.cuda.matmul.allow_tf32 is (precision == "tf32")


def test_refuse_unfit_names_a_gpu_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    check_budget(Budget(1, 1, precision="fp16"), nn.Linear(1, 1), "cuda")
    with pytest.raises(OptionError, match="which Tesla T4 is not"):
        check_budget(Budget(1, 1, precision="tf32"), nn.Linear(1, 1), "cuda")


def test_refuse_unfit_refuses_checkpointing_for_a_model_without_layers() -> None:
    with pytest.raises(
        ModelError,
        match=r"list of layers, which Linear lacks",
    ):
        check_budget(Budget(1, 1, gradient_checkpointing=True), nn.Linear(1, 1), "cpu")


def test_4bit_layers_compute_in_fp32_with_tf32_precision() -> None:
    assert loading.DTYPES["tf32"] == torch.float32
    assert set(loading.DTYPES) == {"fp32", "tf32", "bf16", "fp16"}
