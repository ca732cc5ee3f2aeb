"""`peft-methods recipes` and `peft-methods methods`: what can be compared, as tables."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from peft_methods.utils.sanitize import visible


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the commands `recipes` and `methods`."""
    recipes = commands.add_parser(
        "recipes",
        help="list the recipes that are part of the package",
        description="List the shipped recipes: model, data, task, rows and methods. Choose one "
        "with `peft-methods run --recipe NAME`, or give the path of a TOML file of your own.",
    )
    recipes.set_defaults(run=print_recipes)
    methods = commands.add_parser(
        "methods",
        help="list the fine-tuning methods",
        description="List all methods, also those that other installed packages bring. Choose "
        "some with `peft-methods run --method A,B`.",
    )
    methods.set_defaults(run=print_methods)


def print_recipes(arguments: argparse.Namespace) -> int:
    """Print a row for each shipped recipe."""
    from peft_methods.recipes.loading import load_recipe, shipped_recipes

    rows = []
    for name in shipped_recipes():
        recipe = load_recipe(name)
        data = recipe.data
        rows.append(
            (
                name,
                recipe.model.source,
                data.source,
                f"{data.train} / {data.validation} / {data.test}",
                "GPU" if recipe.gpu else "any",
            )
        )
    _print_table(("recipe", "model", "data", "train / validation / test", "device"), rows)
    return 0


def print_methods(arguments: argparse.Namespace) -> int:
    """Print a row for each method, then a line for each installed one that cannot be used."""
    from peft_methods.methods.registry import METHODS

    infos = [METHODS[name].info for name in METHODS]
    rows = [(info.name, info.title, info.family, info.trained) for info in infos]
    width = shutil.get_terminal_size((100, 24)).columns
    taken = sum(max(len(row[column]) for row in rows) + 2 for column in range(3))
    room = max(24, width - taken)
    wrapped = [(*row[:3], textwrap.fill(row[3], room)) for row in rows]
    _print_table(("method", "title", "family", "what is trained"), wrapped)
    for problem in METHODS.problems:
        print(visible(problem))
    return 0


def _print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from tabulate import tabulate

    print(tabulate(list(rows), headers, tablefmt="simple", disable_numparse=True))
