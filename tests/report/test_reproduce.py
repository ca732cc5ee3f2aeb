"""The reproduction command of a row, parsed by the command line, yields the spec of its runs."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import make_record, with_settings
from peft_methods.cli.command_text import pytest_command
from peft_methods.cli.options import read_options
from peft_methods.recipes.curve import curve_recipes
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import Recipe
from peft_methods.recipes.several_models import recipes_of_models
from peft_methods.report.reproduce import recipe_file, reproduction
from peft_methods.runs.plan import run_groups
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import with_task
from peft_methods.utils.checkout import clone


def records_of(
    recipe: str,
    method: str,
    *changes: str,
    model: str | None = None,
    data: str | None = None,
    engine: str = "auto",
) -> list[Record]:
    """Records of the runs that these settings would produce."""
    (task,) = run_groups(
        [load_recipe(recipe, changes, model=model, data=data)], [method], "cpu", engine
    )
    return [replace(make_record(method), spec=run) for run in task.runs]


def specs_of(command: str, pytester: pytest.Pytester) -> list[RunSpec]:
    """Specs of the runs that this command, made outside a clone, would train."""
    program, name, *words = shlex.split(command)
    assert (program, name) == ("peft-methods", "run")
    arguments = [f"--peft-{word[2:]}" if word.startswith("--") else word for word in words]
    config = pytester.parseconfigure("-p", "peft_methods.plugin", *arguments)
    return [run.recorded() for task in read_options(config).tasks() for run in task.runs]


@pytest.mark.parametrize(
    ("recipe", "method", "changes", "where"),
    [
        ("embedded", "lora", [], {}),
        ("embedded", "adapter_fusion", ["budget.epochs=4"], {}),
        (
            "embedded",
            "lora",
            ["methods.lora.rank=4", "methods.lora.targets=['query']", "budget.seeds=[4]"],
            {},
        ),
        (
            "embedded",
            "ia3",
            ["methods.ia3.learning_rate=1e-5", "budget.precision=bf16", "data.train=all"],
            {},
        ),
        (
            "embedded",
            "full",
            ["data.text=a column's name", "data.label='true'"],
            {"data": "someone/some_data"},
        ),
        (
            "sst2_bert",
            "lora",
            ["gpu=false"],
            {"model": "someone/some-model", "data": "someone/some_data"},
        ),
        ("imdb_roberta", "full", ["model.weights=random"], {"engine": "trainer"}),
    ],
)
def test_reproduction_command_yields_the_same_specs(
    recipe: str, method: str, changes: list[str], where: Any, pytester: pytest.Pytester
) -> None:
    records = records_of(recipe, method, *changes, **where)
    reproduced = reproduction(records)
    assert not reproduced.needs_file
    assert reproduced.needs == ()
    assert specs_of(pytest_command(reproduced.options), pytester) == [
        record.spec for record in records
    ]


TASK_DATA = {  # what inference sets for the data of a user
    "regression": ["task=regression"],
    "multilabel": ["task=multilabel", "data.label=toxic, mild"],
    "token_classification": ["task=token_classification", "data.rank_by=token_accuracy"],
    "causal_lm": [
        "task=causal_lm",
        "data.template='{q} -> {a}'",
        "data.answer_pattern='#### (.+)'",
        "data.general_text=bundled:editorials",
        "data.select_by=perplexity",
        "data.rank_by=bleu",
    ],
}


@pytest.mark.parametrize("task", TASK_DATA)
def test_command_names_a_task_and_its_settings(task: str, pytester: pytest.Pytester) -> None:
    given = {"data": "someone/some_data", "model": "someone/some-model"}
    records = records_of("embedded", "lora", *TASK_DATA[task], **given)
    assert records[0].spec.recipe.task == task
    reproduced = reproduction(records)
    assert not reproduced.needs_file
    assert specs_of(pytest_command(reproduced.options), pytester) == [
        record.spec for record in records
    ]


def test_command_leaves_out_the_metric_that_the_task_brings() -> None:
    (record,) = records_of("goemotions_multilabel", "lora", "budget.seeds=1")
    planned = with_task(record.spec.recipe)
    assert planned.data.select_by == "micro_f1"
    record = replace(record, spec=replace(record.spec, recipe=planned))
    assert [name for name, _ in reproduction([record]).options] == ["recipe", "method", "seeds"]


@pytest.mark.parametrize("sizes", [(), (100,)])
@pytest.mark.parametrize("changes", [(), ("budget.epochs=4", "task=regression")])
def test_command_of_one_of_several_models_yields_the_same_specs(
    sizes: tuple[int, ...], changes: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    for recipe in of_models(["someone/bert", "someone/llama"], sizes, changes):
        records = records_of_recipe(recipe)
        reproduced = reproduction(records)
        assert not reproduced.needs_file
        command = pytest_command(reproduced.options)
        assert specs_of(command, pytester) == [record.spec for record in records]
        assert f"--model {recipe.model.source} " in command


def test_recipe_file_of_one_of_several_models_yields_the_same_specs(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    models = ["someone/bert", "someone/llama"]
    for recipe in of_models(models, (), ["data.source=someone/data"], str(tiny_recipe)):
        records = records_of_recipe(recipe)
        reproduced = reproduction(records)
        assert reproduced.needs_file
        Path(f"{recipe.name}.toml").write_text(recipe_file(records[:1]), encoding="utf-8")
        command = pytest_command(reproduced.options)
        assert specs_of(command, pytester) == [record.spec for record in records]


def of_models(
    models: Sequence[str], sizes: Sequence[int], changes: Sequence[str], name: str = "embedded"
) -> list[Recipe]:
    def load(name: str, model: str | None) -> Recipe:
        return load_recipe(name, changes, model=model)

    recipes = recipes_of_models(load, name, models)
    return [size for recipe in recipes for size in curve_recipes(recipe, sizes)]


def records_of_recipe(recipe: Recipe) -> list[Record]:
    (task,) = run_groups([recipe], ["lora"], "cpu")
    return [replace(make_record("lora"), spec=run) for run in task.runs]


@pytest.fixture
def in_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the clone that the package is imported from."""
    root = clone()
    if root is None:
        pytest.skip("not a clone")
    monkeypatch.chdir(root)


@pytest.mark.usefixtures("in_clone")
def test_reproduction_command_lists_only_changed_settings() -> None:
    reproduced = reproduction(records_of("embedded", "lora", "budget.epochs=4"))
    assert pytest_command(reproduced.options) == (
        "pytest benchmarks --peft-recipe embedded --peft-method lora --peft-seeds 3 "
        "--peft-set budget.epochs=4"
    )


def test_command_outside_the_clone_needs_no_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reproduced = reproduction(records_of("embedded", "lora", "budget.epochs=4"))
    assert pytest_command(reproduced.options) == (
        "peft-methods run --recipe embedded --method lora --seeds 3 --set budget.epochs=4"
    )


def test_reproduction_of_a_custom_recipe_includes_its_file(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    records = [
        record
        for method in ("lora", "adapter_fusion")
        for record in records_of(str(tiny_recipe), method)
    ]
    reproduced = reproduction(records[:2])
    assert reproduced.needs_file
    assert (
        pytest_command(reproduced.options)
        == "peft-methods run --recipe tiny.toml --method lora --seeds 2"
    )
    assert reproduced.needs == (
        "bert is a local folder with the model: replace it by the path of your copy",
        "words is a local folder with the data: replace it by the path of your copy",
    )
    text = recipe_file([records[0], records[2]])
    assert str(tiny_recipe.parent.parent) not in text
    Path("tiny.toml").write_text(text, encoding="utf-8")
    commands = specs_of(pytest_command(reproduced.options), pytester)
    for spec, record in zip(commands, records[:2], strict=True):
        names = (("model.source", "bert"), ("data.source", "words"))
        assert spec == with_settings(record.spec, *names)


def test_reproduction_uses_a_file_if_a_setting_was_removed() -> None:
    (record, *_) = records_of("embedded", "ia3")
    without = replace(
        record,
        spec=with_settings(record.spec, ("method.head_learning_rate", None)),
    )
    reproduced = reproduction([without])
    assert reproduced.needs_file
    assert "-recipe embedded.toml" in pytest_command(reproduced.options)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() == text
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    column=texts,
    rate=st.floats(1e-9, 10),
    rank=st.integers(1, 99),
    seeds=st.sets(st.integers(0, 9), min_size=1),
)
def test_reproduction_command_round_trips_arbitrary_settings(
    column: str, rate: float, rank: int, seeds: set[int]
) -> None:
    recipe = load_recipe(
        "embedded",
        [
            f"methods.lora.rank={rank}",
            f"methods.lora.learning_rate={rate!r}",
            f"budget.seeds={sorted(seeds)}",
        ],
    )
    recipe = replace(recipe, data=replace(recipe.data, text=column))
    (task,) = run_groups([recipe], ["lora"], "cpu")
    reproduced = reproduction([replace(make_record(), spec=run) for run in task.runs])
    arguments = itertools.pairwise(shlex.split(pytest_command(reproduced.options)))
    settings = [value for option, value in arguments if option in ("--set", "--peft-set")]
    (task_again,) = run_groups([load_recipe("embedded", settings)], ["lora"], "cpu")
    assert replace(task_again.runs[0], seed=0).to_json() == replace(task.runs[0], seed=0).to_json()
