"""Every setting that an error names can be changed by the command line and by `compare()`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import peft_methods
from builders import make_model
from peft_methods import api
from peft_methods.cli import setting_help
from peft_methods.cli.options import Options
from peft_methods.methods.registry import METHODS
from peft_methods.recipes.schema import Recipe
from peft_methods.utils.errors import OptionError

ROOT = Path(peft_methods.__file__).parent
ONLY_COMMAND_LINE = {
    *("baseline", "fail", "save_baseline", "markdown", "csv", "paper", "output"),
    "detach",
    "columns",  # `table(columns=...)` of what `compare` returns
}


def named_settings() -> Iterator[str]:
    """Yield every text given as `setting=` in the package, or as the default of a `setting`."""
    texts = (path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py"))
    for text in (text for text in texts if re.search(r"\bsetting\b", text)):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "setting":
                value = getattr(node.value, "value", None)
                if isinstance(value, str) and value:
                    yield value
            elif (
                isinstance(node, ast.FunctionDef)
                and node.args.defaults
                and node.args.args[-1].arg == "setting"
            ):
                yield ast.literal_eval(node.args.defaults[-1])


def recipe_fields(of: Any = Recipe, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all fields of a recipe."""
    hints = get_type_hints(of)
    for field in fields(of):
        yield f"{prefix}{field.name}"
        for kind in (hints[field.name], *get_args(hints[field.name])):
            if is_dataclass(kind):
                yield from recipe_fields(kind, f"{prefix}{field.name}.")


SETTINGS = sorted(set(named_settings()))


def test_settings_are_found_in_the_package() -> None:
    assert {"workers", "timeout", "engine", "budget.seeds", "data.source"} <= set(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_named_setting_exists_and_both_front_doors_name_how_to_change_it(setting: str) -> None:
    is_field = setting in set(recipe_fields())
    command_line = setting_help.how_to_change(setting)
    argument = api.how_to_change(setting)
    if is_field or setting == "methods":
        assert command_line
        assert argument
        return
    assert command_line.removeprefix("--peft-").replace("-", "_") in setting_help.OPTIONS or (
        setting in setting_help.COMMAND_OPTIONS
    )
    assert argument.endswith(("=…", "=True")) != (setting in ONLY_COMMAND_LINE)


def test_error_of_a_method_setting_is_set_by_name() -> None:
    (method, *_) = METHODS
    setting = f"methods.{method}.learning_rate"
    assert setting_help.how_to_change(setting) == f"--peft-set {setting}=VALUE"
    assert api.how_to_change(setting) == f'settings=["{setting}=…"]'


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("workers", "too many. Change it with --peft-workers."),
        ("data.max_length", "too many. Change it with --peft-set data.max_length=VALUE."),
        ("", "too many."),
    ],
)
def test_explained_adds_the_option(setting: str, text: str) -> None:
    assert setting_help.explained(OptionError("too many.", setting=setting)) == text


@pytest.mark.parametrize("setting", SETTINGS)
def test_option_is_named_as_the_command_line_in_use_names_it(setting: str) -> None:
    usual = setting_help.how_to_change(setting)
    with setting_help.options_start_with("--"):
        assert setting_help.how_to_change(setting) == usual.replace("--peft-", "--")


def test_note_of_rates_names_the_option_in_use(tiny_recipe: Path, tmp_path: Path) -> None:
    model = str(make_model(tmp_path / "mpnet", "mpnet"))
    options = Options((str(tiny_recipe),), ("lora",), (), tmp_path / "results", models=(model,))
    with setting_help.options_start_with("--"):
        (task, *_) = options.tasks()
    assert "Tune them with --tune, or" in " ".join(task.recipe.notes)


@pytest.mark.parametrize(("setting", "option"), [("silence", "--silence"), ("workers", "")])
def test_commands_name_their_own_options(setting: str, option: str) -> None:
    assert setting_help.how_to_change_in_command(setting) == option
