"""The generated reference pages name everything that the code offers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import peft_methods
from peft_methods.analysis.checks import RULES
from peft_methods.api import ARGUMENT_NAMES, compare
from peft_methods.cli.setting_help import OPTIONS
from peft_methods.methods import METHODS
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.loading import shipped_recipes
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS
from peft_methods.training.registry import ENGINES
from reference_docs import GENERATORS, MARK, commands, fields, fill, python_api
from reference_docs.options import options

DOCS = Path(__file__).parents[2] / "docs"
README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}


def test_every_generated_text_is_on_a_page_and_every_mark_is_known() -> None:
    used = {name for text in PAGES.values() for name in MARK.findall(text)}
    assert used == set(GENERATORS)
    leftover = re.compile(r"<!--\s*generated")
    assert not [path for path, text in PAGES.items() if leftover.search(MARK.sub("", text))]


def test_fill_replaces_marks_and_refuses_unknown_ones() -> None:
    assert fill("before\n<!-- generated: tasks -->\nafter").startswith("before\n| task |")
    with pytest.raises(KeyError, match="no-such-list"):
        fill("<!-- generated: no-such-list -->")


def test_options_page_names_every_option_with_its_help() -> None:
    page = GENERATORS["options"]()
    assert len(options()) >= len(OPTIONS)
    for option in options():
        assert f"`{option.option_strings[-1]}" in page
        assert option.help, f"{option.option_strings[-1]} has no help"
    assert "%" + "(" not in page, "a default was not filled in"
    for name in ("settings", *ARGUMENT_NAMES.values()):
        assert f"| `{name}` |" in page, f"no option is mapped to compare({name}=…)"


def test_recipe_page_names_every_field_of_every_section() -> None:
    page = GENERATORS["recipe-fields"]()
    for section, kind in fields.SECTIONS.items():
        for one in dataclasses.fields(kind):
            name = f"{section}.{one.name}" if section else one.name
            assert f"`{name}`" in page or f"## `[{name}]`" in page
    assert {one.name for one in dataclasses.fields(Recipe)} >= set(fields.SECTIONS) - {""}


def test_method_page_names_every_hyperparameter_and_the_source_of_every_rate() -> None:
    page = GENERATORS["method-fields"]()
    for name in METHODS:
        section = page.partition(f"`[methods.{name}]`")[2].partition("\n## ")[0]
        for one in dataclasses.fields(METHODS[name]):
            assert f"`{one.name}`" in section
        for rate in METHODS[name].info.learning_rates.values():
            assert rate.source in section


def test_record_page_names_every_field() -> None:
    page = GENERATORS["record-fields"]()
    for one in dataclasses.fields(Record):
        assert (f"| `{one.name}` |" in page) == (one.name != "reused")
    for one in dataclasses.fields(RunSpec):
        assert (f"| `spec.{one.name}` |" in page) == (one.name != "tuning")
    assert all(f"`{key}`" in GENERATORS["extra-info"]() for key in ("metrics", "spec", "seeds"))


def test_lists_name_every_metric_rule_method_task_recipe_and_engine() -> None:
    for generator, names in {
        "metrics": METRICS,
        "methods": METHODS,
        "tasks": TASKS,
        "recipes": shipped_recipes(),
        "engines": ENGINES,
    }.items():
        page = GENERATORS[generator]()
        assert [name for name in names if f"| `{name}` |" not in page] == []
    assert [name for name in RULES if f"| {name} |" not in GENERATORS["checks"]()] == []


def test_commands_and_exit_codes_are_complete() -> None:
    page = GENERATORS["commands"]()
    assert {"audit", "report"} <= set(commands.command_names())
    assert all(f"## `{name}`" in page for name in commands.command_names())
    assert all(f"| `{int(code)}` |" in GENERATORS["exit-codes"]() for code in pytest.ExitCode)


def test_python_page_names_what_the_package_offers() -> None:
    page = GENERATORS["python-api"]()
    for name in set(peft_methods.__all__) - {"__version__"}:
        assert f"peft_methods.{name}(" in page
    for kind in (*python_api.USED, *python_api.CONTRACTS):
        assert f".{kind.__name__}\n" in page
    arguments = page.partition("### The arguments of `compare`")[2].partition("\n## ")[0]
    for name in compare.__kwdefaults__ or {}:
        assert f"`{name}" in arguments, f"help(peft_methods.api) does not explain {name}"


def test_readme_lists_tasks_as_generated() -> None:
    listed = README.partition("<!-- tasks -->\n")[2].partition("\n<!-- /tasks -->")[0]
    assert listed == GENERATORS["tasks"](), "put the generated list between the marks"


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150
