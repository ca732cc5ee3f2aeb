"""The option that says what seeds vary, for pytest, `peft-methods run` and `compare()`."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.api import compare
from peft_methods.cli import parsing
from peft_methods.cli.options import Options
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.one_part_alone import with_each_part_alone
from peft_methods.recipes.variation import USUAL
from peft_methods.utils.errors import OptionError


def options(recipe: Path, **more: object) -> Options:
    values = {"recipes": (str(recipe),), "methods": ("lora",), "settings": (), **more}
    return Options(results=Path("unused"), **values)  # type: ignore[arg-type]


def test_names_become_a_recipe_field() -> None:
    assert parsing.vary_settings("dropout, data_order") == (
        'budget.vary=["dropout", "data_order"]',
    )
    assert parsing.vary_settings([]) == ("budget.vary=[]",)
    assert parsing.vary_settings(None) == parsing.vary_settings("each") == ()
    with pytest.raises(OptionError, match="'each' trains every part of the recipe alone"):
        parsing.vary_settings("each,dropout")
    with pytest.raises(OptionError, match="has an empty name"):
        parsing.vary_settings("dropout,")


def test_each_adds_a_recipe_for_every_part_alone(tiny_recipe: Path) -> None:
    found = options(tiny_recipe, settings=("budget.seeds=2",), each_part=True).tasks()
    assert [task.recipe.name for task in found] == ["tiny", *(f"tiny.{part}" for part in USUAL)]
    assert [task.recipe.budget.vary for task in found] == [USUAL, *((part,) for part in USUAL)]
    assert [len(task.runs) for task in found] == [2, 2, 2, 2]
    assert len({run.key for task in found for run in task.runs}) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (['budget.vary=["split"]'], "seeds vary split, so there are no parts to tell apart"),
        (["budget.vary=[]"], "seeds vary nothing"),
        (["budget.seeds=1"], "one seed shows no spread"),
    ],
)
def test_each_needs_parts_and_seeds(settings: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        with_each_part_alone(load_recipe("embedded", settings))


def test_each_part_is_not_tuned_apart(tiny_recipe: Path) -> None:
    with pytest.raises(OptionError, match="Tune first"):
        options(tiny_recipe, each_part=True, trials=2).tasks()


def test_pytest_lists_the_runs_of_every_part(pytester: pytest.Pytester, tiny_recipe: Path) -> None:
    pytester.makepyfile("from peft_methods.plugin import *")
    result = pytester.runpytest_inprocess(
        "--peft-vary=drop_out", f"--peft-recipe={tiny_recipe}", "--peft-method=lora"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown random part 'drop_out'. Did you mean 'dropout'?*"])
    result = pytester.runpytest_inprocess(
        "--peft-vary=each", "--peft-save-baseline=new.json", f"--peft-recipe={tiny_recipe}"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*a baseline holds one session of a recipe*"])


@pytest.mark.slow
def test_compare_measures_each_part(tiny_recipe: Path, tmp_path: Path) -> None:
    comparison = compare(
        str(tiny_recipe),
        methods=["head_only"],
        seeds=2,
        vary="each",
        settings=["data.train=40", "data.test=20", "budget.epochs=1"],
        results=tmp_path / "results",
        progress=False,
    )
    assert len(comparison.records) == 8
    assert "initialisation alone" in comparison.table()
