"""The stock engine: what it trains, in which order, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from peft_methods import data, models
from builders import Recorder, prepared
from builders import trainer_options as silent
from peft_methods import models
from peft_methods.engines import stock
from peft_methods.engines.base import EpochResult
from peft_methods.engines.batches import Collator, predict
from peft_methods.methods import TRAINED


def trained(
    recipe_path: Path, folder: Path, method_name: str, *settings: str, seed: int = 0
) -> Any:
    recipe, method, base, model, tokens = prepared(recipe_path, method_name, *settings, seed=seed)
    recorder = Recorder()
    own = {
        "head": base.head,
        "seed": seed,
        "device": "cpu",
        "workdir": folder,
        "listener": recorder,
    }
    training = stock.train(model, method, tokens, recipe, base.tokenizer, **own)
    return training, model, recorder, tokens, base


def test_phases_follow_each_other_and_training_is_only_the_steps(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    training, _, recorder, tokens, _ = trained(tiny_recipe, tmp_path, "lora")
    assert recorder.phases[:3] == ["warm_up", "train", "evaluate"]
    assert recorder.phases.count("train") == 2
    assert training.steps == len(recorder.steps) == 40
    assert recorder.steps[-1] == (2, 40, 40)
    assert (training.samples, training.tokens) == (320, 2 * sum(tokens.train.lengths))
    assert len(training.epochs) == 2


def test_it_learns_what_one_word_decides(tiny_recipe: Path, tmp_path: Path) -> None:
    training, _, _, _, _ = trained(tiny_recipe, tmp_path, "full")
    assert training.epochs[-1].train_loss < training.epochs[0].train_loss
    assert max(epoch.validation_accuracy for epoch in training.epochs) > 0.9
    assert training.epochs[0].train_accuracy < training.epochs[-1].train_accuracy <= 1


def test_the_best_epochs_weights_are_what_is_left(tiny_recipe: Path, tmp_path: Path) -> None:
    """A rate that wrecks the model late leaves the early epoch in place."""
    from peft_methods import quality

    training, model, recorder, tokens, base = trained(
        tiny_recipe, tmp_path, "full", "budget.epochs=4", "methods.full.learning_rate=2e-2"
    )
    judged = quality.judge(
        predict(model, tokens.validation, Collator(base.tokenizer), 8), tokens.facts.label_names
    )
    best = max(recorder.epochs, key=lambda epoch: (epoch.selection, -epoch.validation_loss))
    assert training.best_epoch == best.epoch
    assert judged.accuracy == best.validation_accuracy
    assert (tmp_path / TRAINED).is_file()


def test_the_same_seed_gives_the_same_weights_to_the_bit(tiny_recipe: Path, tmp_path: Path) -> None:
    weights = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        _, model, _, _, _ = trained(tiny_recipe, tmp_path / run, "lora", seed=3)
        weights.append(
            torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
        )
    assert torch.equal(*weights)


def test_the_warm_up_changes_nothing(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it, _, _, _, _ = trained(tiny_recipe, tmp_path, "lora")
    monkeypatch.setattr(stock, "warm_up", lambda *_: None)
    without, _, _, _, _ = trained(tiny_recipe, tmp_path, "lora")
    assert with_it.epochs == without.epochs


def test_the_order_of_batches_depends_on_the_seed_alone(tiny_recipe: Path, tmp_path: Path) -> None:
    orders = []
    for name, seed in (("full", 0), ("lora", 0), ("lora", 1)):
        recipe, method, base, model, tokens = prepared(tiny_recipe, name)
        arguments = stock.arguments_of(recipe, method, seed, "cpu", tmp_path)
        trainer = stock.StockTrainer(
            method,
            base.head,
            model,
            arguments,
            Collator(base.tokenizer),
            tokens.train,
            **silent(recipe),
        )
        torch.rand(seed * 7 + len(name))  # what a method draws must not matter
        sampler = trainer._get_train_sampler()
        orders.append((list(sampler), list(sampler)))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1]
    assert sorted(orders[0][0]) == list(range(160))


def test_weight_decay_spares_biases_and_norms_but_no_adapter(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    recipe, method, base, model, tokens = prepared(tiny_recipe, "adapter")
    arguments = stock.arguments_of(recipe, method, 0, "cpu", tmp_path)
    trainer = stock.StockTrainer(
        method,
        base.head,
        model,
        arguments,
        Collator(base.tokenizer),
        tokens.train,
        **silent(recipe),
    )
    decayed = set(trainer.get_decay_parameter_names(model))
    adapter = [n for n, p in model.named_parameters() if p.requires_grad and ".adapter." in n]
    assert {n for n in adapter if n.endswith("weight")} <= decayed
    assert not any(n.endswith("bias") or n.endswith("LayerNorm.wrapped.weight") for n in decayed)


def test_the_head_may_have_a_rate_of_its_own(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe, method, base, model, tokens = prepared(
        tiny_recipe, "ia3", "methods.ia3.head_learning_rate=1e-3"
    )
    arguments = stock.arguments_of(recipe, method, 0, "cpu", tmp_path)
    trainer = stock.StockTrainer(
        method,
        base.head,
        model,
        arguments,
        Collator(base.tokenizer),
        tokens.train,
        **silent(recipe),
    )
    rates = {
        p: group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]
    }
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(trainable.values()) == set(rates)
    assert {models.in_modules(n, base.head): rates[p] for n, p in trainable.items()} == {
        True: 1e-3,
        False: method.learning_rate,
    }


def test_accumulation_divides_the_loss(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe, method, base, model, tokens = prepared(tiny_recipe, "lora")
    trainer = stock.StockTrainer(
        method,
        base.head,
        model,
        stock.arguments_of(recipe, method, 0, "cpu", tmp_path),
        Collator(base.tokenizer),
        tokens.train,
        **silent(recipe),
    )
    assert trainer.model_accepts_loss_kwargs is False


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_predictions_are_in_the_datas_order_whatever_the_batch(
    tiny_recipe: Path, batch_size: int
) -> None:
    _, _, base, model, tokens = prepared(tiny_recipe, "full")
    model.train()
    got = predict(model, tokens.test, Collator(base.tokenizer), batch_size)
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


def test_an_epoch_whose_logits_are_no_numbers_is_judged_by_nobody(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """The highest of logits that are no numbers is the first: that would pass for an accuracy."""
    wild = (
        "methods.full.learning_rate=1e38",
        "budget.max_grad_norm=1e30",
        "budget.epochs=4",
        "budget.early_stopping=2",
    )
    training, _, recorder, _, _ = trained(tiny_recipe, tmp_path, "full", *wild)
    assert all(
        np.isnan(result.train_loss) and np.isnan(result.validation_loss)
        for result in recorder.epochs
    )
    assert all(result.train_accuracy is None for result in recorder.epochs)
    assert {(result.validation_accuracy, result.selection) for result in recorder.epochs} == {
        (None, None)
    }
    assert len(training.epochs) == training.best_epoch == 2  # no gain is no gain


def test_what_could_be_judged_goes_before_what_could_not() -> None:
    sound, worse, spoilt = (
        EpochResult(1, 0.5, 0.6, 0.7, 0.7),
        EpochResult(2, 0.5, 0.7, 0.4, 0.4),
        EpochResult(3, 0.1, float("nan")),
    )
    assert sound.is_better_than(None)
    assert not worse.is_better_than(sound)
    assert not spoilt.is_better_than(worse)
    assert worse.is_better_than(spoilt)
    assert spoilt.is_better_than(spoilt)  # nothing to judge by: the last is as good as any


def test_random_weights_keep_the_last_epoch_and_judge_none(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    training, model, recorder, _, _ = trained(
        tiny_recipe, tmp_path, "full", "model.weights=random", "budget.epochs=3"
    )
    assert training.best_epoch == 3
    assert (
        recorder.phases.count("save") == 2
    )  # the last epoch's weights, which are known beforehand to be kept, and the end
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
