"""Tiny jobs of causal language modelling: prompts, completions, recipes and models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from builders import DECODERS, Recorder, StepLog, training_job, without_dropout
from peft_methods.data import splits, tokenize
from peft_methods.methods.base import Method
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.models.quantization import values_of
from peft_methods.recipes.schema import Budget, DataSpec, ModelSpec, Recipe
from peft_methods.runs import pipeline, run_paths
from peft_methods.runs.apply_context import context_of
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.decoding.greedy import Prompt
from peft_methods.tasks.registry import TASKS, with_task
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.trainer import loop

TASK = TASKS["causal_lm"]
WORDS = ("good", "bad", "fine", "poor")


def write_pairs(folder: Path, train: int = 48, test: int = 12) -> Path:
    """Write prompts whose completion repeats a word; test rows have two references."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "prompt": f"plot {WORDS[i % 4]} {chr(97 + i // 26)} {chr(97 + i % 26)}",
            "completion": f"{WORDS[i % 4]} " + "very " * (i % 3) + "end",
        }
        for i in range(train + test)
    ]
    tested = [
        {**row, "refs": [row["completion"], f"the {row['completion']}"]} for row in rows[train:]
    ]
    for name, part in (("train", rows[:train]), ("test", tested)):
        lines = "\n".join(json.dumps(row) for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def recipe_of(model: Path, data: Path, method: str = "full", **changes: Any) -> Recipe:
    """Return a recipe of a few steps. `changes` go to the data or to the budget."""
    of_data = {name: value for name, value in changes.items() if hasattr(DataSpec, name)}
    of_budget = {name: value for name, value in changes.items() if name not in of_data}
    spec = DataSpec(
        str(data), **{"train": 36, "validation": 12, "test": 12, "max_length": 24} | of_data
    )
    budget = Budget(**{"epochs": 2, "batch_size": 8, "seeds": 1} | of_budget)
    return with_task(
        Recipe("lm", ModelSpec(str(model)), spec, budget, {method: {}}, task="causal_lm")
    )


def method_of(name: str, rate: float = 1e-2, **settings: Any) -> Method:
    settings = {"learning_rate": rate, **METHODS[name].example_settings(), **settings}
    return METHODS.create(name, settings, "test")


def ready(
    recipe: Recipe, name: str = "full", rate: float = 1e-2, *, device: str = "cpu", **settings: Any
) -> Any:
    """Return what `training_job` needs: the model with the method applied, and the tokens."""
    method = method_of(name, rate, **settings)
    texts = splits.load(recipe.data, TASK)
    transformers.set_seed(0)
    base = loading.load(
        recipe.model,
        TASK.head,
        texts.facts.label_names,
        quantization=method.info.quantization,
        precision=recipe.budget.precision,
        device=device,
    )
    run = RunSpec(recipe, method, 0, device)
    tokens = tokenize.tokenize(texts, base.tokenizer, recipe.data, TASK)
    context = context_of(run, base, texts.facts.label_names, (), lambda: tokens)
    return recipe, method, base, method.apply(base.model, context), tokens


def run_and_save(recipe: Recipe, name: str, folder: Path) -> tuple[Any, Any, Path]:
    """Run a recipe with one method and save its model. Return record, predictions and folder."""
    run = RunSpec(recipe, method_of(name), 0, "cpu")
    work, saved = folder / "work", folder / "saved"
    work.mkdir(parents=True)
    paths = run_paths.RunPaths(work, (), save_to=saved)
    record, predictions = pipeline.execute(run, paths, lambda news: None, threads=1)
    assert record.status == "ok", record.message
    return record, predictions, saved


Trained = tuple[StepLog, Any, torch.Tensor]


def trained_without_dropout(
    kind: type[loop.RunTrainer], model: Path, data: Path, folder: Path, name: str, **changes: Any
) -> Trained:
    """Train. Return the log of the steps, the result and the weights."""
    folder.mkdir(parents=True)
    log = StepLog(kind)
    made = ready(recipe_of(model, data, name, **changes), name)
    without_dropout(made[3])
    result = loop.train(training_job(made, folder), Recorder(), trainer_class=log.kind)
    return log, result, torch.cat([values_of(p).flatten() for p in made[3].parameters()])


def assert_equal_trainings(
    model: Path, data: Path, folder: Path, name: str, **changes: Any
) -> None:
    """Check that packed steps of the cuda_graphs engine are the padded ones of the Trainer."""
    padded, packed = (
        trained_without_dropout(kind, model, data, folder / kind.__name__, name, **changes)
        for kind in (loop.RunTrainer, CudaGraphsTrainer)
    )
    assert_same_steps(packed, padded)


def assert_same_steps(packed: Trained, padded: Trained) -> None:
    """Check that losses, norms of gradients, weights, evaluations and tokens are the same."""
    (one, result, weights), (other, expected, expected_weights) = packed, padded
    assert len(other.losses) >= 10
    assert one.losses == pytest.approx(other.losses, rel=1e-5)
    assert one.norms == pytest.approx(other.norms, rel=1e-3, abs=1e-6)
    assert torch.allclose(weights, expected_weights, atol=2e-4)
    for epoch, padded_epoch in zip(result.epochs, expected.epochs, strict=True):
        assert epoch.train_loss == pytest.approx(padded_epoch.train_loss, rel=1e-5)
        assert epoch.first_loss == pytest.approx(padded_epoch.first_loss, rel=1e-5)
        assert epoch.validation_loss == pytest.approx(padded_epoch.validation_loss, rel=1e-5)
    assert result.tokens == expected.tokens


def vivid(model: Any, seed: int = 0) -> Any:
    """Give a model large random matrices, so that its next tokens depend on all before them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.ndim > 1:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.generation_config = transformers.GenerationConfig()  # no token of its own ends a text
    return model.eval()


def vivid_decoder(kind: str) -> Any:
    """Return a small decoder whose texts vary."""
    torch.manual_seed(0)
    return vivid(transformers.AutoModelForCausalLM.from_config(DECODERS[kind]()))


def prompts_of(count: int, longest: int = 20, new: int = 15) -> list[Prompt]:
    """Return prompts of up to `longest` tokens, the longest first, with different limits."""
    rng = np.random.default_rng(1)
    lengths = sorted(rng.integers(1, longest, count).tolist(), reverse=True)
    limits = rng.integers(1, new, count).tolist()
    return [
        Prompt(rng.integers(5, 40, length).tolist(), limit)
        for length, limit in zip(lengths, limits, strict=True)
    ]


def generated_alone(model: Any, prompts: Sequence[Prompt], ends: Sequence[int]) -> list[list[int]]:
    """Return the new tokens of each prompt by transformers alone, without any padding."""
    found = []
    for prompt in prompts:
        given = torch.tensor([list(prompt.ids)], device=model.device)
        made = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            generation_config=transformers.GenerationConfig(
                max_new_tokens=prompt.limit,
                do_sample=False,
                eos_token_id=list(ends) or None,
                pad_token_id=0,
            ),
        )
        found.append(made[0, len(prompt.ids) :].tolist())
    return found


def wide_gaps(
    model: Any,
    prompts: Sequence[Prompt],
    found: Sequence[Sequence[int]],
    others: Sequence[Sequence[int]],
    ulps: float = 6,
) -> list[tuple[int, float]]:
    """Return the prompts whose two texts part at tokens that are not nearly equally good.

    Of each it is its number, and how far below the highest logit the worse token's is, where that
    is more than some units of bf16's rounding.
    """
    wide = []
    device = next(model.parameters()).device
    for number, (prompt, one, other) in enumerate(zip(prompts, found, others, strict=True)):
        if list(one) == list(other):
            continue
        pairs = enumerate(zip(one, other, strict=False))
        place = next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)) - 1)
        given = torch.tensor([[*prompt.ids, *one[:place]]], device=device)
        with torch.no_grad():
            logits = model(input_ids=given, attention_mask=torch.ones_like(given)).logits
        last = logits[0, -1].float()
        gap = float(last.max() - min(last[one[place]], last[other[place]]))
        if gap > ulps * 2**-8 * float(last.abs().max()):
            wide.append((number, gap))
    return wide


class PlainTrainer(transformers.Trainer):
    """The Hugging Face Trainer that keeps the loss of each step, in `losses`.

    The rows come in the order of `generator`, or as they are without one.
    """

    def __init__(self, *arguments: Any, generator: torch.Generator | None = None) -> None:
        super().__init__(*arguments)
        self.losses: list[float] = []
        self._generator = generator

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Run a step and keep its loss."""
        loss = super().training_step(*arguments, **options)
        self.losses.append(float(loss))
        return loss

    def _get_train_sampler(self, *_: Any) -> Any:
        if self._generator is None:
            return torch.utils.data.SequentialSampler(self.train_dataset)
        return torch.utils.data.RandomSampler(self.train_dataset, generator=self._generator)
