"""What a seed varies: one part at a time differs between seeds, and the rest stays the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from builders import (
    SMALL,
    TASK,
    Recorder,
    data_spec,
    make_rows,
    reproducible_results,
    run_here,
    runs,
    write_csv,
)
from peft_methods.data import splits, synthetic, tokenize
from peft_methods.data.facts import TextData
from peft_methods.methods.base import ApplyContext
from peft_methods.models.parameters import trainable_tensors
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.variation import PARTS, USUAL
from peft_methods.runs.prepare import load as load_model
from peft_methods.runs.prepare import prepare
from peft_methods.runs.spec import RunSpec
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.engine import TrainingJob
from peft_methods.training.trainer.loop import RunTrainer, train
from peft_methods.utils.errors import DataError, OptionError


class Uncompiled(CudaGraphsTrainer):
    """The cuda_graphs engine without compiled layers, so that hooks in the model are called."""

    compile_layers = False


ENGINES = {"trainer": RunTrainer, "cuda_graphs": Uncompiled}
# Rows of one length and whole batches: then a mask depends on nothing but its random stream.
SAME_SHAPES = ("data.max_length=16", "budget.padding=fixed", *SMALL[:-1], "budget.seeds=[3,4]")


def vary(*parts: str) -> str:
    """Return the setting that lets these parts vary."""
    return f"budget.vary={list(parts)}"


@contextmanager
def seen_by(model: nn.Module) -> Iterator[dict[str, list[Any]]]:
    """Context manager: collect the ids of every training batch and the mask of its last dropout."""
    seen: dict[str, list[Any]] = {"data_order": [], "dropout": []}

    def ids(_: nn.Module, arguments: Any, options: Any) -> None:
        if model.training:
            seen["data_order"].append(options["input_ids"].tolist())

    def mask(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        if model.training:
            seen["dropout"].append((output == 0).flatten().tolist())

    last = [one for one in model.modules() if isinstance(one, nn.Dropout) and one.p > 0][-1]
    hooks = [
        model.register_forward_pre_hook(ids, with_kwargs=True),
        last.register_forward_hook(mask),
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def parts_of(run: RunSpec, folder: Path, engine: str) -> dict[str, Any]:
    """Train a run. Return what each random part was in it."""
    texts = synthetic.load(run.recipe, TASK, run.row_seeds)
    base = load_model(run, texts, "cpu")
    context = ApplyContext(base.architecture, base.head, TASK.peft_type, ())
    model = run.method.apply(base.model, context)
    weights = {name: one.tolist() for name, one in trainable_tensors(model).items()}
    tokens = tokenize.tokenize(texts, base.tokenizer, run.recipe.data, TASK)
    folder.mkdir()
    job = TrainingJob(
        model, run.method, tokens, run.recipe, base.tokenizer, base.head, run.seed, "cpu", folder
    )
    with seen_by(model) as seen:
        train(job, Recorder(), trainer_class=ENGINES[engine])
    rows = {split: sorted(table.texts) for split, table in texts.splits.items()}
    return {
        "initialisation": weights,
        **seen,
        "training_subset": rows["train"],
        "split": rows["validation"],
        "test": rows["test"],
    }


def two_seeds(recipe: Path, folder: Path, engine: str, *settings: str) -> list[dict[str, Any]]:
    """Return the random parts of two seeds' runs of LoRA."""
    return [
        parts_of(run, folder / str(run.seed), engine)
        for run in runs(recipe, "lora", *SAME_SHAPES, *settings)
    ]


def differing(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    return {part for part in first if first[part] != second[part]}


# Other rows come in other batches, so their order differs as a consequence.
FOLLOWS = {
    "training_subset": {"data_order"},
    "split": {"training_subset", "data_order"},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("part", PARTS)
def test_one_part_alone_differs_between_seeds(
    tiny_recipe: Path, tmp_path: Path, part: str, engine: str
) -> None:
    first, second = two_seeds(tiny_recipe, tmp_path, engine, vary(part))
    assert part in differing(first, second)
    assert differing(first, second) <= {part} | FOLLOWS.get(part, set())


@pytest.mark.parametrize("engine", ENGINES)
def test_the_usual_parts_are_those_of_a_recipe_that_names_none(
    tiny_recipe: Path, tmp_path: Path, engine: str
) -> None:
    first, second = two_seeds(tiny_recipe, tmp_path, engine)
    assert differing(first, second) == set(USUAL)


def test_order_of_fixed_length_batches_is_grouped_or_random_by_the_part_seed(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """The order is that of the part's seed with dynamic padding, too."""
    one, other = two_seeds(
        tiny_recipe, tmp_path, "trainer", vary("dropout"), "budget.padding=dynamic"
    )
    assert one["data_order"] == other["data_order"]


@pytest.mark.slow
def test_without_any_part_all_seeds_give_identical_results(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    first, second = (
        reproducible_results(*run_here(run, tmp_path / str(run.seed)))
        for run in runs(tiny_recipe, "lora", *SMALL[:-1], "budget.seeds=2", vary())
    )
    assert first == second


@pytest.mark.slow
def test_seed_zero_is_the_fixed_seed(tiny_recipe: Path, tmp_path: Path) -> None:
    """A fixed part is that of seed 0, so results for the default are those of earlier versions."""
    usual, fixed = (
        runs(tiny_recipe, "lora", *SMALL, *more)[0] for more in ((), (vary("initialisation"),))
    )
    first, second = (
        reproducible_results(*run_here(run, tmp_path / run.key)) for run in (usual, fixed)
    )
    assert first == second
    assert usual.key != fixed.key


# settings and specs


def test_only_a_choice_of_parts_other_than_the_usual_is_in_the_spec(tiny_recipe: Path) -> None:
    usual, named, fewer = (
        runs(tiny_recipe, "adapter_fusion", *more)[0]
        for more in ((), (vary(*reversed(USUAL)),), (vary("dropout"),))
    )
    assert "vary" not in usual.to_json()["recipe"]["budget"]
    assert usual.key == named.key != fewer.key
    assert fewer.to_json()["recipe"]["budget"]["vary"] == ["dropout"]
    assert RunSpec.from_json(fewer.to_json()) == fewer.recorded()
    assert [one.key for one in fewer.prerequisites] == [one.key for one in usual.prerequisites]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('["drop_out"]', "unknown random part 'drop_out'. Did you mean 'dropout'?"),
        ('["initialization"]', "Did you mean 'initialisation'? Allowed: initialisation, data_ord"),
        ('["dropout", "dropout"]', "names a part twice"),
        ("dropout", "budget.vary = 'dropout' should be a list"),
    ],
)
def test_bad_parts_are_refused(tiny_recipe: Path, value: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        load_recipe(str(tiny_recipe), [f"budget.vary={value}"])
    assert message in str(caught.value)


# rows


SIZES: dict[str, Any] = {"train": 60, "validation": 20, "test": 20, "test_split": "train"}


def drawn(folder: Path, seed: int, *parts: str, **more: Any) -> TextData:
    recipe = load_recipe("embedded", [vary(*parts)])
    spec = data_spec(folder, **{**SIZES, **more})
    return splits.load(spec, TASK, recipe.budget.row_seeds(seed))


def test_test_rows_never_vary_and_splits_stay_disjoint_and_stratified(tmp_path: Path) -> None:
    folder = write_csv(tmp_path, train=make_rows(200))
    fixed = splits.load(data_spec(folder, **SIZES), TASK)
    for seed in range(5):
        found = drawn(folder, seed, "split", "training_subset")
        assert found.splits["test"].texts == fixed.splits["test"].texts
        assert len({text for table in found.splits.values() for text in table.texts}) == 100
        assert all(abs(2 * sum(table.labels) - len(table)) <= 2 for table in found.splits.values())
        assert found.facts.fingerprint != fixed.facts.fingerprint
        assert found.facts.test_fingerprint == drawn(folder, 9, "split").facts.test_fingerprint


def test_a_new_validation_split_moves_no_more_training_rows_than_it_must(tmp_path: Path) -> None:
    folder = write_csv(tmp_path, train=make_rows(200))
    first, second = (drawn(folder, seed, "split").splits for seed in (0, 1))
    assert set(first["validation"].texts) != set(second["validation"].texts)
    assert len(set(first["train"].texts) & set(second["train"].texts)) > 30  # by chance 27


def test_rows_are_drawn_evenly(tmp_path: Path) -> None:
    """Each of the 180 rows that are left is trained on in about a third of the seeds."""
    folder = write_csv(tmp_path, train=make_rows(200))
    pool = {row["text"]: 0 for row in make_rows(200)}
    for seed in range(60):
        for text in drawn(folder, seed, "split", "training_subset").splits["train"].texts:
            pool[text] += 1
    counts = np.array([count for count in pool.values() if count])
    assert len(counts) == 180  # all but the test rows
    assert abs(counts.std() - np.sqrt(60 * (1 / 3) * (2 / 3))) < 1


@pytest.mark.parametrize(
    ("part", "sizes", "setting"),
    [
        ("training_subset", {"train": "all"}, "data.train"),
        ("split", {"train": 10, "validation": 30}, "data.validation"),
    ],
)
def test_a_part_that_cannot_vary_is_refused(
    tmp_path: Path, part: str, sizes: dict[str, Any], setting: str
) -> None:
    rows = make_rows(100)
    own = {"validation": rows[50:80]} if part == "split" else {}
    folder = write_csv(tmp_path, train=rows[:50], test=rows[80:], **own)
    with pytest.raises(DataError, match=f"budget.vary has '{part}'.* every seed would") as caught:
        drawn(folder, 0, part, **sizes)
    assert caught.value.setting == setting


def test_a_split_that_would_move_test_rows_is_refused(tmp_path: Path) -> None:
    folder = write_csv(tmp_path, train=make_rows(200))
    with pytest.raises(DataError, match="the seeds would have different test rows"):
        drawn(folder, 0, "split", validation_by="sentences")
    apart = write_csv(tmp_path / "b", train=make_rows(200)[:150], test=make_rows(200)[150:])
    first, second = (
        drawn(apart, seed, "split", validation_by="sentences", test_split="test").splits
        for seed in (0, 1)
    )
    assert first["validation"].texts != second["validation"].texts
    assert first["test"].texts == second["test"].texts


def test_drawn_rows_need_texts(tiny_recipe: Path) -> None:
    recipe = load_recipe("imdb_roberta", [vary("split")], weights="random")
    with pytest.raises(DataError, match="Leave out 'split' and 'training_subset'"):
        synthetic.load(recipe, TASK, recipe.budget.row_seeds(0))


def test_the_check_of_a_recipe_knows_the_rows_of_every_seed(tiny_recipe: Path) -> None:
    """Otherwise runs with drawn rows could not be reused."""
    found = runs(tiny_recipe, "lora", *SMALL[:-1], "budget.seeds=2", vary("split"))
    prepared = prepare(found[0].recipe, (found[0].method,), "cpu", threads=1)
    assert prepared.facts is not None
    for run in found:
        texts = synthetic.load(run.recipe, TASK, run.row_seeds)
        assert prepared.facts.data[run.rows_name] == texts.facts.fingerprint
    trial = replace(found[0], role="trial")
    assert trial.rows_name == trial.recipe.name in prepared.facts.data
