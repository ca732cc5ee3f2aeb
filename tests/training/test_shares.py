"""Shares of a batch, filler rows, metrics of all ranks, and budgets that several GPUs refuse."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import language_builders
from builders import make_decoder, prepared
from peft_methods.methods import METHODS
from peft_methods.models import ranks
from peft_methods.models.parameters import assign_parameters, save_trainable
from peft_methods.models.ranks import collected, dealt
from peft_methods.profiling.rank_metrics import OF_FIRST, combined
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import Budget
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.launch import run_in_ranks
from peft_methods.runs.executors.rank import Ranks
from peft_methods.runs.plan import run_groups
from peft_methods.runs.scaling import on_one_gpu
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.tasks.registry import TASKS
from peft_methods.training.distributed import support
from peft_methods.training.distributed.batches import WHOLE, RankCollator, shares, unlabelled
from peft_methods.training.distributed.sharding import shard
from peft_methods.training.registry import choose_engine
from peft_methods.utils.errors import OptionError


@pytest.mark.parametrize(("rows", "sizes"), [(8, [4, 4]), (5, [3, 2]), (1, [1, 0])])
def test_shares_are_contiguous_and_differ_by_a_row_at_most(rows: int, sizes: list[int]) -> None:
    found = shares(list(range(rows)), 2)  # type: ignore[arg-type]
    assert [len(share) for share in found] == sizes
    assert [row for share in found for row in share] == list(range(rows))


def test_a_single_rank_has_the_whole_batch(tiny_recipe: Path) -> None:
    _, _, base, _, tokens = prepared(tiny_recipe, "full")
    task = TASKS["text_classification"]
    rows = [tokens.train[row] for row in range(5)]
    plain = task.collator(base.tokenizer)
    batch = RankCollator(task, plain)(rows)
    assert batch.pop(WHOLE) == 5
    assert torch.equal(batch["input_ids"], plain(rows)["input_ids"])
    assert ranks.count() == 1
    assert dealt([1, 2, 3]) == [1, 2, 3]
    assert collected(["a", "b"], 2) == ["a", "b"]


@pytest.mark.parametrize("recipe", ["tiny_recipe", "tagged_recipe"])
def test_rows_without_labels_add_nothing_to_loss_and_gradient(
    recipe: str, request: pytest.FixtureRequest
) -> None:
    spec, _, base, model, tokens = prepared(request.getfixturevalue(recipe), "full")
    task = TASKS[spec.task]
    check_nothing_is_added(task, task.collator(base.tokenizer), model, [tokens.train[0]])


@pytest.mark.parametrize("padding", ["dynamic", "packed"])
def test_texts_without_labels_add_nothing_to_loss_and_gradient(
    padding: str, tmp_path: Path
) -> None:
    model, data = make_decoder(tmp_path / "model"), language_builders.write_pairs(tmp_path / "data")
    ready = language_builders.ready(language_builders.recipe_of(model, data))
    task = TASKS["causal_lm"]
    tokenizer = ready[2].tokenizer
    collate = (
        task.packed_collator(tokenizer, 24) if padding == "packed" else task.collator(tokenizer)
    )
    check_nothing_is_added(task, collate, ready[3], [ready[4].train[0]])


def check_nothing_is_added(task, collate, model, rows) -> None:  # type: ignore[no-untyped-def]
    batch = unlabelled(collate, rows)
    assert task.examples_in_batch(batch) == 0
    found = task.loss(model, batch)
    assert (found.total.item(), found.count.item(), found.mean.item()) == (0, 0, 0)
    torch.autograd.backward(found.mean)
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_memory_is_that_of_the_fullest_rank_and_energy_the_sum() -> None:
    steps = dict.fromkeys(OF_FIRST, 1.0)
    other = {"thermal_slowdown_seconds": 0.0, "weights_bytes": 7.0}
    every = [
        {**steps, **other, "peak_memory_bytes": 30.0, "energy_joules": 5.0},
        {**steps, **other, "peak_memory_bytes": 40.0, "energy_joules": 6.0, "weights_bytes": 9.0},
    ]
    found = combined(every)
    assert (found["peak_memory_bytes"], found["least_peak_memory_bytes"]) == (40, 30)
    assert (found["weights_bytes"], found["energy_joules"]) == (9, 11)
    assert combined([every[0], {**every[1], "energy_joules": None}])["energy_joules"] is None


@pytest.mark.parametrize(
    ("settings", "message", "setting"),
    [
        ({"strategy": "ddp"}, "is for a run over several GPUs", "budget.gpus"),
        ({"gpus": 3}, "cannot be shared equally by budget.gpus = 3", "budget.batch_size"),
    ],
)
def test_budgets_that_several_gpus_refuse(
    settings: dict[str, object], message: str, setting: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Budget(1, 16, **settings)  # type: ignore[arg-type]
    assert caught.value.setting == setting
    assert "\n" not in str(caught.value)


def test_the_strategy_of_several_gpus_is_ddp_by_default() -> None:
    assert Budget(1, 16, gpus=2).strategy == "ddp"
    assert Budget(1, 16).strategy is None


def test_more_processes_than_cores_and_other_engines_are_refused(tiny_recipe: Path) -> None:
    many = load_recipe(str(tiny_recipe), ["budget.gpus=512", "budget.batch_size=512"])
    with pytest.raises(OptionError, match=r"budget.gpus = 512 is more than .* \(this machine"):
        run_groups([many], ["full"], "cpu")
    with pytest.raises(OptionError, match=r"the largest node has 8 GPUs\). Set budget.gpus = 8 or"):
        run_groups([many], ["full"], "cuda", largest_node=8)
    assert run_groups([many], ["full"], "cpu", largest_node=512)
    assert choose_engine("auto", "cuda", gpus=2) == "trainer"
    with pytest.raises(OptionError, match=r"'cuda_graphs' trains on one GPU, and budget.gpus = 2"):
        choose_engine("cuda_graphs", "cuda", gpus=2)


def test_unknown_strategies_are_refused_in_one_line(tiny_recipe: Path) -> None:
    with pytest.raises(OptionError, match=r"budget.strategy"):
        load_recipe(str(tiny_recipe), ["budget.gpus=2", "budget.strategy=zero3"])


def test_methods_and_versions_that_several_gpus_refuse(
    monkeypatch: pytest.MonkeyPatch, tiny_recipe: Path
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    qlora = METHODS.create("qlora", {"learning_rate": 1e-3}, "test", recipe)
    budget = replace(recipe.budget, gpus=2, strategy="fsdp")
    assert support.unsupported_on_several(qlora, budget) is None
    monkeypatch.setattr(support, "NEEDED_IN_4_BITS", {"bitsandbytes": (99, 0)})
    reason = support.unsupported_on_several(qlora, budget)
    assert reason is not None
    assert "QLoRA with budget.strategy = 'fsdp' needs bitsandbytes 99.0 or newer" in reason
    assert support.unsupported_on_several(qlora, replace(budget, strategy="ddp")) is None
    monkeypatch.setattr(support, "NEEDED", {"torch": (99, 0)})
    with pytest.raises(OptionError, match=r"budget.gpus = 2 needs torch 99.0 or newer"):
        support.check_versions(budget)
    support.check_versions(recipe.budget)


def test_a_run_on_one_gpu_has_the_spec_of_records_from_before(tiny_recipe: Path) -> None:
    """Otherwise every finished run would be trained again."""
    recipe = load_recipe(str(tiny_recipe))
    method = METHODS.create("full", {"learning_rate": 1e-3}, "test", recipe)
    run = run_specs(recipe, method, "cpu")[0]
    assert not {"gpus", "strategy"} & set(run.to_json()["recipe"]["budget"])
    over = replace(recipe, budget=replace(recipe.budget, gpus=2, strategy=None))
    several = replace(run, recipe=over)
    assert several.to_json()["recipe"]["budget"]["strategy"] == "ddp"
    assert RunSpec.from_json(several.to_json()).recipe.budget.gpus == 2
    assert several.key != run.key == on_one_gpu(several).key


def saved_and_loaded_in_parts(folder: Path, path: Path) -> dict[str, bool]:
    """Save and load a model that is divided among ranks, after an evaluation that gathers it."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    shard(model, "cpu", "fp32")
    save_trainable(model, path)
    halves = {name: 0.5 * tensor for name, tensor in load_file(path).items()}
    with torch.inference_mode():
        model.eval()(input_ids=torch.arange(4)[None])
    ranks.divide_again(model)
    assign_parameters(model, halves)
    after = {name: ranks.whole(p.detach()) for name, p in model.named_parameters()}
    first = next(model.parameters())
    return {
        "saved as it was": all(torch.equal(2 * halves[name], before[name]) for name in before),
        "loaded": all(torch.equal(after[name], halves[name]) for name in before),
        "in parts": first.to_local().numel() < first.numel(),  # type: ignore[operator]
    }


def test_divided_weights_are_saved_and_loaded_whole(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    several = Ranks(DeviceSet((), 2), 2, tmp_path / "ranks", tmp_path / "run.log", os.getpid())
    path = tmp_path / "saved.safetensors"
    found = run_in_ranks(
        several, "cpu", lambda _: saved_and_loaded_in_parts(tiny_models["bert"], path)
    )
    assert found == dict.fromkeys(found, True)
