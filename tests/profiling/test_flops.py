"""FLOPs of training, compared with a count by hand and with torch's counter on a whole step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from builders import DEVICE, METHOD_NAMES, make_trainer, prepared, runs, training_job
from peft_methods.methods.registry import METHODS
from peft_methods.models.quantization import flop_formulas
from peft_methods.profiling import flops
from peft_methods.profiling.flops import TrainingFlops, count_training_flops
from peft_methods.runs import pipeline
from peft_methods.runs.run_paths import RunPaths
from peft_methods.runs.spec import RunSpec
from peft_methods.training.engine import TrainingJob

HIDDEN, INNER, LAYERS, LABELS = 32, 64, 2, 2  # of the tiny models
LINEAR = 2 * LAYERS * (4 * HIDDEN**2 + 2 * HIDDEN * INNER)  # of a token's forward pass
ATTENTION = 2 * 2 * LAYERS * HIDDEN  # of a token beside another
HEAD = 2 * (HIDDEN**2 + HIDDEN * LABELS)  # pooler and classifier, of a row


def count(recipe: Path, folder: Path, method: str, *settings: str) -> TrainingFlops:
    return count_training_flops(training_job(prepared(recipe, method, *settings), folder))


def equals(found: TrainingFlops, **expected: float) -> None:
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6, abs=1.0), name


def test_full_fine_tuning_costs_three_forward_passes(tiny_recipe: Path, tmp_path: Path) -> None:
    found = count(tiny_recipe, tmp_path, "full")
    equals(found, per_step=0, per_row=3 * HEAD, per_token=3 * LINEAR, per_square=3 * ATTENTION)
    lengths = [5, 9, 14]
    by_hand = 3 * (3 * HEAD + sum(n * LINEAR + n * n * ATTENTION for n in lengths))
    assert found.of(lengths, steps=2) == pytest.approx(by_hand)


def test_head_only_has_no_backward_pass_in_the_encoder(tiny_recipe: Path, tmp_path: Path) -> None:
    """The classifier alone is trained: the gradients of its weights, and none of its inputs."""
    head = HEAD + 2 * HIDDEN * LABELS
    found = count(tiny_recipe, tmp_path, "head_only")
    equals(found, per_step=0, per_row=head, per_token=LINEAR, per_square=ATTENTION)


def test_nothing_before_the_first_adapter_has_a_gradient(tiny_recipe: Path, tmp_path: Path) -> None:
    """Of two layers only the second one's activations have gradients, so two passes of two."""
    found = count(tiny_recipe, tmp_path, "adapter", "methods.adapter.reduction_factor=32")
    width = 1
    # per layer: forward, gradients of both weights, of the inner activations; later of the input
    adapters = 2 * HIDDEN * width * ((2 + 2 + 1) * LAYERS + (LAYERS - 1))
    equals(found, per_token=1.5 * LINEAR + adapters, per_square=2 * ATTENTION)


def rows_of_one_length(job: TrainingJob, count: int = 8) -> list[Any]:
    """Return rows of the most frequent length, so that a batch of them has no padding."""
    (length, _), *_ = Counter(job.data.train.lengths).most_common()
    return [row for row in job.data.train if len(row["input_ids"]) == length][:count]


def flops_of_a_step(ready: Any, folder: Path) -> tuple[int, list[int]]:
    """Count one step of the Trainer's, with eager attention, and return its rows' lengths."""
    trainer = make_trainer(ready, folder)
    model, rows = trainer.model.train(), rows_of_one_length(trainer.job)
    inner = next(one for one in model.modules() if hasattr(one, "set_attn_implementation"))
    inner.set_attn_implementation("eager")
    batch = {name: tensor.to(DEVICE) for name, tensor in trainer.data_collator(rows).items()}
    trainer.compute_loss(model, batch)  # before its first step, a method may look at the model
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        torch.autograd.backward(trainer.compute_loss(model, batch))
    return counter.get_total_flops(), [len(row["input_ids"]) for row in rows]


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_flops_are_those_that_torch_counts_in_the_same_step(
    name: str, kind: str, tiny_models: dict[str, Path], tiny_recipe: Path, tmp_path: Path
) -> None:
    """Within 2 % of torch's counter on a step of the Trainer's, over 8 rows of one length.

    The counted rows are others, of other lengths, and attention is eager here. Torch sees no
    product within another library's kernel. For QLoRA the forward products with 4-bit weights are
    such (bitsandbytes' gemm_4bit), so both counts take our formula for them, and the result must be
    that of LoRA, whose products torch sees all.
    """
    settings = (f"model.source={tiny_models[kind]}", "data.max_length=32")
    ready = prepared(tiny_recipe, name, *settings, device=DEVICE)
    job = training_job(ready, tmp_path, device=DEVICE)
    found = count_training_flops(job)
    assert all(p.grad is None for p in job.model.parameters())
    expected, lengths = flops_of_a_step(ready, tmp_path)
    assert found.of(lengths, steps=1) == pytest.approx(expected, rel=0.02)
    if plain := METHODS[name].info.unquantized_counterpart:
        rank = f"methods.{plain}.rank={job.method.rank}"  # type: ignore[attr-defined]
        other = prepared(tiny_recipe, plain, *settings, rank, device=DEVICE)
        unquantized = count_training_flops(training_job(other, tmp_path, device=DEVICE))
        assert found.of(lengths, 1) == pytest.approx(unquantized.of(lengths, 1), rel=0.001)


def test_flops_are_counted_once_for_all_seeds_and_again_for_another_method(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counted = []

    def count(job: Any) -> TrainingFlops:
        counted.append(job.method.name)
        return count_training_flops(job)

    monkeypatch.setattr(flops, "count_training_flops", count)
    paths = RunPaths(tmp_path, matmul_flops_per_second=1e9)

    def utilized(run: RunSpec) -> float:
        record, _ = pipeline.execute(run, paths, lambda news: None, threads=1)
        share, seconds = (
            record.metrics[name] for name in ("model_flops_utilization", "train_seconds")
        )
        assert share is not None
        assert seconds is not None
        return share * seconds

    lora, head = (runs(tiny_recipe, name, "budget.epochs=1")[0] for name in ("lora", "head_only"))
    first = utilized(lora)
    assert utilized(replace(lora, seed=1)) == pytest.approx(first)
    assert utilized(head) < first
    assert counted == ["lora", "head_only"]


@pytest.mark.slow
def test_record_has_the_utilization_of_the_trained_model(tiny_recipe: Path, tmp_path: Path) -> None:
    """160 rows in batches of 8 for 2 epochs, at a rate of 1 GFLOP/s. A prerequisite has none."""
    run = runs(tiny_recipe, "adapter")[0]
    paths = RunPaths(tmp_path, matmul_flops_per_second=1e9)
    record, _ = pipeline.execute(run, paths, lambda news: None, threads=1)
    metrics = record.metrics
    share, seconds = metrics["model_flops_utilization"], metrics["train_seconds"]
    assert share is not None
    assert seconds is not None
    job = training_job(prepared(tiny_recipe, "adapter"), tmp_path)
    expected = count_training_flops(job).of(2 * job.data.train.lengths, steps=2 * 20)
    assert share * seconds * 1e9 == pytest.approx(expected)
    earlier = replace(run, role="prerequisite")
    record, _ = pipeline.execute(earlier, paths, lambda news: None, threads=1)
    assert record.metrics["model_flops_utilization"] is None
