"""The trainer engine: training, batch order, optimizer groups and the weights it returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from builders import TASK, Recorder, make_trainer, prepared, training_job
from peft_methods.methods.base import TRAINED
from peft_methods.models.module_names import in_modules
from peft_methods.tasks.collate import Collator
from peft_methods.training.engine import EpochResult
from peft_methods.training.evaluation import predict
from peft_methods.training.trainer import loop, warm_up


def trained(
    recipe_path: Path, folder: Path, method_name: str, *settings: str, seed: int = 0
) -> Any:
    ready = _, _, base, model, tokens = prepared(recipe_path, method_name, *settings, seed=seed)
    recorder = Recorder()
    training = loop.train(training_job(ready, folder, seed=seed), recorder)
    return training, model, recorder, tokens, base


def test_train_reports_phases_steps_and_counts(tiny_recipe: Path, tmp_path: Path) -> None:
    training, _, recorder, tokens, _ = trained(tiny_recipe, tmp_path, "lora")
    assert recorder.phases[:3] == ["warm_up", "train", "evaluate"]
    assert recorder.phases.count("train") == 2
    assert training.steps == len(recorder.steps) == 40
    assert recorder.steps[-1] == (2, 40, 40)
    assert (training.samples, training.tokens) == (320, 2 * sum(tokens.train.lengths))
    assert len(training.epochs) == 2


def test_train_learns_labels_that_depend_on_one_word(tiny_recipe: Path, tmp_path: Path) -> None:
    training, _, _, _, _ = trained(tiny_recipe, tmp_path, "full")
    assert training.epochs[-1].train_loss < training.epochs[0].train_loss
    assert max(epoch.validation_accuracy for epoch in training.epochs) > 0.9
    assert training.epochs[0].train_accuracy < training.epochs[-1].train_accuracy <= 1


def test_train_ends_with_the_weights_of_the_best_epoch(tiny_recipe: Path, tmp_path: Path) -> None:
    """The learning rate ruins the model in a late epoch, so an early epoch is the best."""
    training, model, recorder, tokens, base = trained(
        tiny_recipe, tmp_path, "full", "budget.epochs=4", "methods.full.learning_rate=2e-2"
    )
    evaluated = TASK.evaluate(
        predict(TASK, model, tokens.validation, Collator(base.tokenizer), 8),
        tokens.facts.label_names,
    )
    best = max(recorder.epochs, key=lambda epoch: (epoch.selection, -epoch.validation_loss))
    assert training.best_epoch == best.epoch
    assert evaluated.scores["accuracy"] == best.validation_accuracy
    assert (tmp_path / TRAINED).is_file()


def test_train_gives_bit_identical_weights_for_the_same_seed(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    weights = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        _, model, _, _, _ = trained(tiny_recipe, tmp_path / run, "lora", seed=3)
        weights.append(
            torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
        )
    assert torch.equal(*weights)


def test_warm_up_does_not_change_training(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it, _, _, _, _ = trained(tiny_recipe, tmp_path, "lora")
    monkeypatch.setattr(loop, "warm_up", lambda *_: None)
    without, _, _, _, _ = trained(tiny_recipe, tmp_path, "lora")
    assert with_it.epochs == without.epochs


def test_the_first_step_of_the_warm_up_is_short_on_a_cpu(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It creates the optimizer state, for every trained weight; the second one has the memory."""
    found, states = [], []

    def idle_step(trainer: Any, batch: Any, optimizer: Any, trace: Any) -> None:
        found.append(tuple(batch["input_ids"].shape))
        step(trainer, batch, optimizer, trace)
        states.append(sum(p.numel() for p in optimizer.state))

    step = warm_up.idle_step
    monkeypatch.setattr(warm_up, "idle_step", idle_step)
    _, model, _, tokens, _ = trained(tiny_recipe, tmp_path, "full")
    assert found == [(2, max(tokens.train.lengths)), (8, max(tokens.train.lengths))]
    assert states == [sum(p.numel() for p in model.parameters() if p.requires_grad)] * 2


@pytest.mark.parametrize(("accumulation", "kept"), [(1, False), (2, True)])
def test_no_step_of_the_warm_up_holds_gradients_that_training_would_not(
    tiny_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accumulation: int,
    kept: bool,
) -> None:
    """They would count in the peak of memory. Ranks take a third step, as one process does here."""
    found = []

    def idle_step(trainer: Any, *arguments: Any) -> None:
        found.append(any(p.grad is not None for p in trainer.model.parameters()))
        step(trainer, *arguments)

    step = warm_up.idle_step
    monkeypatch.setattr(warm_up, "idle_step", idle_step)
    monkeypatch.setattr(warm_up, "communication_seconds", lambda step: step())
    trained(tiny_recipe, tmp_path, "lora", f"budget.gradient_accumulation={accumulation}")
    assert found == [False, kept, kept]


def test_batch_order_depends_only_on_the_seed(tiny_recipe: Path, tmp_path: Path) -> None:
    orders = []
    for name, seed in (("full", 0), ("lora", 0), ("lora", 1)):
        ready = _, _, _base, _model, _ = prepared(tiny_recipe, name)
        trainer = make_trainer(ready, tmp_path, seed=seed)
        torch.rand(seed * 7 + len(name))  # random numbers that a method draws must not matter
        sampler = trainer._get_train_sampler()
        orders.append((list(sampler), list(sampler)))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1]
    assert sorted(orders[0][0]) == list(range(160))


def test_weight_decay_applies_to_adapters_but_not_to_biases_and_norms(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    ready = _, _, _base, model, _ = prepared(tiny_recipe, "adapter")
    trainer = make_trainer(ready, tmp_path)
    decayed = set(trainer.get_decay_parameter_names(model))
    adapter = [n for n, p in model.named_parameters() if p.requires_grad and ".adapter." in n]
    assert {n for n in adapter if n.endswith("weight")} <= decayed
    assert not any(n.endswith("bias") or n.endswith("LayerNorm.wrapped.weight") for n in decayed)


def test_optimizer_uses_a_separate_learning_rate_for_the_head(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    ready = _, method, base, model, _ = prepared(
        tiny_recipe, "ia3", "methods.ia3.head_learning_rate=1e-3"
    )
    trainer = make_trainer(ready, tmp_path)
    rates = {
        p: group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]
    }
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(trainable.values()) == set(rates)
    assert {in_modules(n, base.head): rates[p] for n, p in trainable.items()} == {
        True: 1e-3,
        False: method.learning_rate,
    }


def test_trainer_divides_the_loss_by_the_accumulated_batches(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    ready = _, _, _base, _model, _ = prepared(tiny_recipe, "lora")
    trainer = make_trainer(ready, tmp_path)
    assert trainer.model_accepts_loss_kwargs is False


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_predictions_keep_the_order_of_rows_for_any_batch_size(
    tiny_recipe: Path, batch_size: int
) -> None:
    _, _, base, model, tokens = prepared(tiny_recipe, "full")
    model.train()
    got = predict(TASK, model, tokens.test, Collator(base.tokenizer), batch_size)
    assert model.training
    model.eval()
    with torch.no_grad():
        one_by_one = torch.cat(
            [
                model(
                    **{k: torch.from_numpy(row[k])[None] for k in ("input_ids", "attention_mask")}
                ).logits
                for row in tokens.test
            ]
        )
    assert np.allclose(got.logits, one_by_one.numpy(), atol=1e-5)
    assert got.labels.tolist() == list(tokens.test.labels)


def test_epoch_with_nan_logits_has_no_scores(tiny_recipe: Path, tmp_path: Path) -> None:
    """The argmax of NaN logits is the first class, which would look like a real accuracy."""
    unstable = (
        "methods.full.learning_rate=1e38",
        "budget.max_grad_norm=1e30",
        "budget.epochs=4",
        "budget.early_stopping=2",
    )
    training, _, recorder, _, _ = trained(tiny_recipe, tmp_path, "full", *unstable)
    assert all(
        np.isnan(result.train_loss) and np.isnan(result.validation_loss)
        for result in recorder.epochs
    )
    assert all(result.train_accuracy is None for result in recorder.epochs)
    assert {(result.validation_accuracy, result.selection) for result in recorder.epochs} == {
        (None, None)
    }
    # Early stopping counts epochs without a score as epochs without improvement.
    assert len(training.epochs) == training.best_epoch == 2


def test_epoch_with_scores_is_better_than_one_without() -> None:
    best, worse, unscored = (
        EpochResult(1, 0.5, 0.6, 0.7, 0.7),
        EpochResult(2, 0.5, 0.7, 0.4, 0.4),
        EpochResult(3, 0.1, float("nan")),
    )
    assert best.is_better_than(None)
    assert not worse.is_better_than(best)
    assert not unscored.is_better_than(worse)
    assert worse.is_better_than(unscored)
    assert unscored.is_better_than(unscored)  # without any scores, the later epoch wins


def test_train_with_random_weights_keeps_the_last_epoch_without_scores(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    training, model, recorder, _, _ = trained(
        tiny_recipe, tmp_path, "full", "model.weights=random", "budget.epochs=3"
    )
    assert training.best_epoch == 3
    # One save for the last epoch, which is known to be kept, and one at the end of training.
    assert recorder.phases.count("save") == 2
    kept = load_file(tmp_path / TRAINED)
    assert all(torch.equal(kept[name], parameter) for name, parameter in model.named_parameters())
    assert recorder.phases.count("evaluate") >= 3
    for result in recorder.epochs:
        assert result.train_loss > 0
        assert (result.validation_loss, result.validation_accuracy, result.selection) == (
            None,
            None,
            None,
        )


@pytest.mark.parametrize(
    ("lengths", "size", "width", "chosen"),
    [
        ([5, 9, 7, 9, 3], 3, 0, [[1, 3, 2]]),
        ([9, 9, 4, 9, 6], 3, 0, [[0, 1, 4], [0, 1, 3]]),  # a mask takes memory of its own
        ([9, 9, 4, 9, 6], 3, 9, [[0, 1, 4], [0, 1, 3]]),
        ([9, 9, 4, 9, 6], 3, 10, [[0, 1, 3]]),  # all rows are padded anyway
        ([9, 9, 4], 1, 0, [[0]]),
        ([9, 9, 9], 2, 0, [[0, 1]]),
        ([9, 4], 5, 0, [[0, 1]]),
    ],
)
def test_the_warm_up_takes_the_batches_of_which_one_needs_most_memory(
    lengths: list[int], size: int, width: int, chosen: list[list[int]]
) -> None:
    assert warm_up.worst_batches(lengths, size, width=width) == chosen


@pytest.mark.parametrize(
    ("key_heads", "device", "precision"),
    [
        (1, "cuda", "fp32"),  # without a mask the scores are stored
        (1, "cuda", "bf16"),
        (1, "cpu", "fp32"),
        (2, "cuda", "fp32"),
    ],
)
def test_a_batch_without_padding_is_tried_where_it_may_need_most_memory(
    tiny_recipe: Path, tmp_path: Path, key_heads: int, device: str, precision: str
) -> None:
    lengths = sorted(prepared(tiny_recipe, "full")[-1].train.lengths)
    most = lengths[-4]  # so many rows are cut to this length, and others are shorter
    settings = (f"data.max_length={most}", "budget.batch_size=4", f"budget.precision={precision}")
    job = training_job(prepared(tiny_recipe, "full", *settings), tmp_path, device=device)
    job.model.config.update({"num_attention_heads": 2, "num_key_value_heads": key_heads})
    chosen = warm_up._chosen_batches(job, packs=False)
    batches = 2 if (key_heads, device, precision) == (1, "cuda", "fp32") else 1
    assert len(chosen) == batches
    tokens = [[job.data.train.lengths[row] for row in rows] for rows in chosen]
    assert min(tokens[0]) < most, "the first has padding"
    assert tokens[1:] == [[most] * 4] * (batches - 1)
