"""The loss of token classification: both engines and a plain Trainer take the same steps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.utils.data import SequentialSampler

from builders import (
    make_trainer,
    prepared,
    train_with_both_engines,
    without_dropout,
)
from peft_methods.tasks.collate import NO_LABEL
from peft_methods.tasks.tag_rows import token_labels
from peft_methods.training.trainer import loop


@pytest.mark.filterwarnings("ignore:.*AccumulateGrad.*")
@pytest.mark.parametrize("settings", [(), ("budget.gradient_accumulation=2",)])
@pytest.mark.parametrize("name", ["full", "lora"])
def test_captured_steps_agree_with_the_trainer(
    tagged_recipe: Path, tmp_path: Path, name: str, settings: tuple[str, ...]
) -> None:
    plain, _ = train_with_both_engines(tagged_recipe, tmp_path, name, *settings)
    assert plain.losses[-1] < plain.losses[0]


class PlainTrainer(transformers.Trainer):
    """transformers' Trainer with the model's own loss, over rows in the given order."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.losses: list[float] = []

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*arguments, **options)
        self.losses.append(float(loss))
        return loss


@pytest.mark.parametrize("name", ["full", "lora"])
def test_steps_agree_with_a_plain_trainer_on_the_same_rows(
    tagged_recipe: Path, tmp_path: Path, name: str
) -> None:
    ready = prepared(tagged_recipe, name, "budget.epochs=1", "budget.warmup_ratio=0")
    _, _, base, model, tokens = ready
    without_dropout(model)
    twin = copy.deepcopy(model)
    ours = make_trainer(ready, tmp_path)
    order = list(make_trainer(ready, tmp_path)._get_train_sampler())
    losses: list[float] = []
    step = ours.training_step

    def watched(*arguments: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = step(*arguments, **options)
        losses.append(float(loss))
        return loss

    ours.training_step = watched
    ours.train()
    rows = [
        {
            "input_ids": tokens.train[row]["input_ids"].tolist(),
            "attention_mask": tokens.train[row]["attention_mask"].tolist(),
            "token_type_ids": tokens.train[row]["token_type_ids"].tolist(),
            "labels": token_labels(tokens.train[row], NO_LABEL).tolist(),
        }
        for row in order
    ]
    collate = transformers.DataCollatorForTokenClassification(base.tokenizer)
    arguments = loop.trainer_arguments(ours.job)
    plain = PlainTrainer(twin, arguments, collate, rows)
    plain.train()
    assert len(losses) == 9
    assert losses == pytest.approx(plain.losses, rel=1e-5)
    for (at, one), (_, other) in zip(
        model.named_parameters(), twin.named_parameters(), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-4), at


def test_accumulated_batches_have_the_gradient_of_one_batch(
    tagged_recipe: Path, tmp_path: Path
) -> None:
    """Batches of unlike numbers of words are weighted by their words."""
    settings = ("budget.batch_size=4", "budget.gradient_accumulation=2")
    ready = prepared(tagged_recipe, "full", *settings)
    trainer = make_trainer(ready, tmp_path)
    model, collate, train = ready[3].eval(), trainer.data_collator, ready[4].train

    def gradients(*parts: range) -> torch.Tensor:
        model.zero_grad()
        batches, _ = trainer.get_batch_samples(
            iter([collate([train[row] for row in part]) for part in parts]), len(parts), "cpu"
        )
        for batch in batches:
            (trainer.compute_loss(model, batch) / len(parts)).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert torch.allclose(
        gradients(range(8)), gradients(range(4), range(4, 8)), rtol=1e-3, atol=1e-6
    )
    assert not torch.allclose(gradients(range(8)), gradients(range(4)), rtol=1e-3, atol=1e-6)
