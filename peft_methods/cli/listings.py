"""`peft-methods recipes` and `peft-methods methods`: what can be compared, as tables."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from peft_methods.utils.sanitize import visible

if TYPE_CHECKING:
    from peft_methods.recipes.schema import Recipe

LEAST_ROOM = 20  # characters of a wrapped column
MOST_OF_TITLE = 28  # characters in a line


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the commands `recipes` and `methods`."""
    recipes = commands.add_parser(
        "recipes",
        help="list the recipes that are part of the package",
        description="List the shipped recipes: model, data, task, rows, device and methods. "
        "Choose one with `peft-methods run --recipe NAME`, or give the path of a TOML file of your "
        "own.",
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
    """Print a row for each shipped recipe, wrapped to the terminal's width."""
    from peft_methods.recipes.loading import load_recipe, shipped_recipes

    recipes = {name: load_recipe(name) for name in shipped_recipes()}
    room = _room_beside([(name,) for name in recipes])
    rows = [
        (name, "\n".join(_filled(line, room) for line in _described(recipe)))
        for name, recipe in recipes.items()
    ]
    _print_table(("recipe", "what it compares"), rows)
    return 0


def _described(recipe: Recipe) -> Iterator[str]:
    """Yield the title of a recipe, then a line for each thing that it fixes."""
    from peft_methods.methods.selection import with_methods

    data = recipe.data
    yield recipe.title or recipe.name
    yield f"model: {recipe.model.source}"
    yield f"data: {data.source}"
    yield f"task: {recipe.task}"
    yield f"rows: {data.train} train / {data.validation} validation / {data.test} test"
    yield f"device: {'GPU' if recipe.gpu else 'any'}"
    yield f"methods: {', '.join(with_methods(recipe).methods)}"


def print_methods(arguments: argparse.Namespace) -> int:
    """Print a row for each method, then a line for each installed one that cannot be used."""
    from peft_methods.methods.conversion import convertible
    from peft_methods.methods.registry import METHODS

    infos = [METHODS[name].info for name in METHODS]
    rows = [(info.name, info.title, info.family, info.trained) for info in infos]
    room = _room_beside([(name, title[:MOST_OF_TITLE], kind) for name, title, kind, _ in rows])
    wrapped = [
        (name, textwrap.fill(title, MOST_OF_TITLE), kind, textwrap.fill(trained, room))
        for name, title, kind, trained in rows
    ]
    _print_table(("method", "title", "family", "what is trained"), wrapped)
    names = f"`peft-methods convert` makes LoRA of: {', '.join(convertible())}."
    print("\n" + textwrap.fill(names, _room_beside([]), break_on_hyphens=False))
    for problem in METHODS.problems:
        print(visible(problem))
    return 0


def _room_beside(rows: Sequence[Sequence[str]]) -> int:
    """Return the width that is left in the terminal beside these columns."""
    from peft_methods.report.text.layout import WIDTH_OF_A_LOG

    width = shutil.get_terminal_size((WIDTH_OF_A_LOG, 24)).columns
    taken = sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True))
    return max(LEAST_ROOM, width - taken)


def _filled(line: str, room: int) -> str:
    return textwrap.fill(line, room, subsequent_indent="  ", break_on_hyphens=False)


def _print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from tabulate import tabulate

    print(tabulate(list(rows), headers, tablefmt="simple", disable_numparse=True))
