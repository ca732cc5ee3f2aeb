"""Stored features: the same training as with the frozen model in every step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builders import (
    CONFIGS,
    DECODERS,
    DEVICE,
    MORE_CONFIGS,
    SEQ2SEQ,
    Recorder,
    StepLog,
    make_any,
    make_model,
    mostly_slow,
    prepared,
    run_here,
    small_runs,
    training_job,
    write_example,
)
from peft_methods.profiling.flops import count_training_flops
from peft_methods.runs.cost_model import expected_seconds
from peft_methods.runs.fitting_engine import with_fitting_engine
from peft_methods.runs.outcome import training_flops
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.run_paths import RunPaths
from peft_methods.tasks.registry import TASKS
from peft_methods.training import features
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import EngineUnfit, ModelError, OptionError

ROWS, EPOCHS = 44, 3
SMALL = (f"data.train={ROWS}", "data.validation=20", f"budget.epochs={EPOCHS}")
NAME = "linear_probe"
RATE = f"methods.{NAME}.learning_rate=0.01"
KINDS = (*CONFIGS, *MORE_CONFIGS, *DECODERS, *SEQ2SEQ)


class Watched:
    """A finished training with the loss of each step, and the rows that passed the layers."""

    def __init__(self, recipe: Path, folder: Path, name: str, *settings: str) -> None:
        folder.mkdir(exist_ok=True)
        rate = f"methods.{name}.learning_rate=0.01"
        ready = prepared(recipe, name, *SMALL, rate, *settings, device=DEVICE)
        self.model: Any = ready[3]
        self.job = training_job(ready, folder, device=DEVICE)
        self.log, self.rows = StepLog(loop.RunTrainer), 0
        body = getattr(self.model, self.model.base_model_prefix)
        layers = getattr(body, "encoder", body)
        handle = layers.register_forward_hook(self._count)
        self.result = loop.train(self.job, Recorder(), trainer_class=self.log.kind)
        handle.remove()
        self.weights = dict(self.model.named_parameters())

    def _count(self, _: nn.Module, __: Any, output: Any) -> None:
        self.rows += len(output[0])


def check_equal(recipe: Path, folder: Path, *settings: str) -> None:
    """Both methods make the same steps, and end with the same weights."""
    plain = Watched(recipe, folder / "a", "head_only", *settings)
    probe = Watched(recipe, folder / "b", NAME, *settings)
    assert probe.log.losses == pytest.approx(plain.log.losses, rel=1e-5, abs=2e-5)
    assert probe.log.norms == pytest.approx(plain.log.norms, rel=1e-3, abs=1e-6)
    assert probe.log.rates == plain.log.rates
    expected, got = plain.result, probe.result
    for name in ("steps", "samples", "tokens", "best_epoch", "decay"):
        assert getattr(got, name) == getattr(expected, name), name
    for name, weights in plain.weights.items():
        assert torch.allclose(probe.weights[name], weights, atol=2e-4), name
        assert probe.weights[name].requires_grad == weights.requires_grad


@pytest.mark.parametrize("kind", mostly_slow(KINDS, "bert", "roberta", "modernbert", "gpt2", "t5"))
def test_steps_are_those_of_head_only_without_dropout(
    kind: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    """FNet mixes padding into each token, so that a row's features depend on its batch's length."""
    source = make_any(tmp_path / "model", kind, vivid=True)
    padding = "fixed" if kind == "fnet" else "dynamic"
    check_equal(tiny_recipe, tmp_path, f"model.source={source}", f"budget.padding={padding}")


def test_a_pooler_without_trained_weights_is_trained(tiny_recipe: Path, tmp_path: Path) -> None:
    source = make_model(tmp_path / "model", trained_pooler=False, vivid=True)
    check_equal(tiny_recipe, tmp_path, f"model.source={source}")


@pytest.mark.parametrize(
    "setting",
    [
        "budget.gradient_accumulation=2",
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in (
                "budget.gradient_checkpointing=true",
                "budget.padding=fixed",
                "budget.precision=bf16",
                "budget.early_stopping=1",
            )
        ),
    ],
)
def test_budgets_hold_for_it_too(setting: str, tiny_recipe: Path, tmp_path: Path) -> None:
    source = make_any(tmp_path / "model", "bert", vivid=True)
    check_equal(tiny_recipe, tmp_path, f"model.source={source}", setting)


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("token_classification", "bert"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("token_classification", "modernbert"),
                ("multilabel", "roberta"),
                ("regression", "bert"),
                ("regression", "llama"),
            )
        ),
    ],
)
def test_other_tasks_have_stored_features(task: str, kind: str, tmp_path: Path) -> None:
    source = make_any(tmp_path / "model", kind, vivid=True)
    data = write_example(TASKS[task], tmp_path / "data")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'name = "r"\ntask = "{task}"\n[model]\nsource = "{source}"\n[data]\nsource = "{data}"\n'
        "train = 32\nvalidation = 12\ntest = 12\nmax_length = 12\n"
        "[budget]\nepochs = 3\nbatch_size = 8\nseeds = 1\n[methods.head_only]\n",
        encoding="utf-8",
    )
    check_equal(recipe, tmp_path, "data.train=32", "data.validation=12")


def test_each_row_passes_the_layers_once(tiny_recipe: Path, tmp_path: Path) -> None:
    """Besides training rows: validation rows, and the warm-up's batch, in two checks and two steps.

    Only tokens that pass the layers have padding.
    """
    source = make_any(tmp_path / "model", "roberta")
    probe = Watched(tiny_recipe, tmp_path, NAME, f"model.source={source}")
    batch, validation = probe.job.recipe.budget.batch_size, len(probe.job.data.validation)
    assert probe.rows == ROWS + EPOCHS * validation + 4 * batch
    plain = Watched(tiny_recipe, tmp_path, "head_only", f"model.source={source}")
    assert plain.rows == EPOCHS * (ROWS + validation) + 2 + batch  # its first step has two rows
    assert probe.result.tokens == plain.result.tokens
    assert 0 < probe.result.padding < plain.result.padding


def test_a_head_that_averages_tokens_reads_all_of_them(tiny_recipe: Path, tmp_path: Path) -> None:
    source = make_any(tmp_path / "model", "modernbert", vivid=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    mean = {**config, "classifier_pooling": "mean"}
    (source / "config.json").write_text(json.dumps(mean), encoding="utf-8")
    check_equal(tiny_recipe, tmp_path, f"model.source={source}")


def test_dropout_before_the_head_stays_active(tiny_recipe: Path, tmp_path: Path) -> None:
    """With it the losses of the first epoch are others; they are the same again with the seed."""
    source = make_any(tmp_path / "model", "bert", vivid=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    losses = []
    for rate in (0.0, 0.4, 0.4):
        dropping = {**config, "classifier_dropout": rate}
        (source / "config.json").write_text(json.dumps(dropping), encoding="utf-8")
        probe = Watched(tiny_recipe, tmp_path / "work", NAME, f"model.source={source}")
        losses.append(probe.log.losses)
    assert losses[1] != pytest.approx(losses[0], rel=1e-3)
    assert losses[1] == losses[2]


def test_too_many_features_are_refused_with_how_many_fit(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "MOST_BYTES", 30 * 32 * 4)
    with pytest.raises(OptionError) as caught:
        Watched(tiny_recipe, tmp_path, NAME)
    assert "would store 44 states of 32 numbers (6 kB), and stores at most 4 kB" in str(
        caught.value
    )
    assert "set data.train = 30 or less, or use the method head_only" in str(caught.value)
    assert caught.value.setting == "data.train"
    Watched(tiny_recipe, tmp_path, NAME, "data.train=30")


def test_a_head_that_reads_other_states_is_refused(tiny_recipe: Path, tmp_path: Path) -> None:
    """Here it adds the number of times that the first layer has computed for it."""
    ready = prepared(tiny_recipe, NAME, *SMALL)
    model, calls = ready[3], []

    def add_calls(_: nn.Module, __: Any, outputs: torch.Tensor) -> torch.Tensor:
        number = len(calls)
        calls.clear()
        return outputs + number

    model.bert.encoder.layer[0].register_forward_hook(lambda *_: calls.append(1))
    model.classifier.register_forward_hook(add_calls)
    with pytest.raises(ModelError, match="BertForSequenceClassification does not read these"):
        loop.train(training_job(ready, tmp_path), Recorder())


class NoCheckpoints:
    """A checkpointer that must not be used."""

    def newest(self) -> None:
        raise AssertionError

    def save(self, state: object) -> None:
        raise AssertionError


def test_a_run_is_not_checkpointed_since_its_features_are_in_no_checkpoint(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    job = training_job(prepared(tiny_recipe, NAME, *SMALL), tmp_path)
    assert loop.train(job, Recorder(), NoCheckpoints()).steps == 18


def test_an_engine_that_replays_steps_leaves_it_to_the_trainer(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    ready = prepared(tiny_recipe, NAME, *SMALL)
    (run,) = small_runs(tiny_recipe, NAME)
    asked = replace(run, device="cuda", engine="cuda_graphs")
    fitting, paths = with_fitting_engine(asked, RunPaths(tmp_path))
    assert fitting.engine == "trainer"
    assert paths.engine_note.startswith("Linear probe has other steps in its first epoch, and the")
    with pytest.raises(EngineUnfit):
        loop.train(training_job(ready, tmp_path), Recorder(), trainer_class=CudaGraphsTrainer)


def test_flops_are_those_of_one_forward_pass_and_of_the_head(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    plain, probe = (
        Watched(tiny_recipe, tmp_path / name, name, "data.train=40") for name in ("head_only", NAME)
    )
    whole, found = (count_training_flops(one.job) for one in (plain, probe))
    head = 2 * (32 * 32 + 32 * 2) + 2 * 32 * 2  # pooler, classifier and its gradient
    later = found.later_epochs
    assert later is not None
    assert later.of([5, 9], 1) == pytest.approx(2 * head)
    lengths = probe.job.data.train.lengths
    once = 40 * 2 * (32 * 32 + 32 * 2)  # the features are made by a pass through the whole model
    assert found.of(lengths, 5) == pytest.approx(whole.of(lengths, 5) + once)
    assert training_flops(probe.job, probe.result, found) == pytest.approx(
        whole.of(lengths, 5) + once + 2 * 40 * head
    )


def test_a_run_is_recorded_and_its_model_is_an_ordinary_one(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    (run,) = small_runs(tiny_recipe, NAME, "budget.epochs=2", RATE)
    record, predictions = run_here(run, tmp_path)
    assert record.status == "ok", record.message
    assert record.evidence is not None
    assert (record.evidence.unmoved, record.evidence.frozen_changed) == ((), ())
    assert record.metrics["method_parameters"] == 0
    assert len(record.epochs) == 2
    assert predictions is not None
    assert sum(epoch["train_seconds"] for epoch in record.epochs) == pytest.approx(
        record.metrics["train_seconds"]
    )


def test_time_estimates_count_one_pass(tiny_recipe: Path) -> None:
    preparation = PreparedRecipe(
        {"class_counts": {"train": [50, 50], "validation": [0], "test": [0]}}, {}, 1.0, 0.0
    )
    (probe,), (plain,) = (small_runs(tiny_recipe, one) for one in (NAME, "head_only"))
    longer = [
        replace(one, recipe=replace(one.recipe, budget=replace(one.recipe.budget, epochs=4)))
        for one in (probe, plain)
    ]
    assert [expected_seconds(one, preparation) for one in longer] == [100, 400]
