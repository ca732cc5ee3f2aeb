"""Which methods a recipe trains: its sections, and methods, families and patterns asked for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from peft_methods.methods.base import Method
from peft_methods.methods.registry import ALL, METHODS
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.registry import TASKS, with_task
from peft_methods.utils.errors import OptionError, nearest

WILDCARDS = frozenset("*?[")
NEGATIONS = frozenset("!-^~")  # signs that exclude a name elsewhere
LIKE = 0.7  # the least similarity, from 0 to 1, of a pattern's letters to a name


def methods_named(word: str) -> tuple[str, ...]:
    """Return the methods that a word stands for, in the registry's order.

    The word is a method, a family (`low_rank`), a pattern (`lora*`), or `all`. Raises `OptionError`
    if it is none of these, or matches nothing.
    """
    if found := _members(word):
        return found
    if word in METHODS.broken:
        raise OptionError(METHODS.broken[word])
    is_pattern = WILDCARDS & set(word)
    problem = f"no method has a name like {word!r}" if is_pattern else f"unknown method {word!r}"
    raise OptionError(f"{problem}.{_hint(word)} {_what_there_is()}")


def _members(word: str) -> tuple[str, ...]:
    """Return the methods that a word stands for; none for one that stands for nothing."""
    if word in METHODS:
        return (word,)
    if word == ALL:
        return tuple(METHODS)
    if WILDCARDS & set(word):
        return tuple(name for name in METHODS if fnmatchcase(name, word))
    return tuple(name for name in METHODS if METHODS[name].info.family == word)


def _hint(word: str) -> str:
    """Return what a word that stands for no method was probably meant to be; '' if unclear."""
    several = re.split(r"[\s;|+/]+", word.strip())
    if len(several) > 1 and all(map(_members, several)):
        return f" Write several names as {','.join(several)}."
    if word[:1] in NEGATIONS and _members(word[1:]):
        return " Methods cannot be excluded: name those to keep."
    titles = {METHODS[name].title.casefold(): name for name in METHODS}
    if name := titles.get(word.casefold()):
        return f" Did you mean {name!r}?"
    names = (*METHODS, *families(), ALL)
    if not WILDCARDS & set(word):
        return nearest(word, names)
    own = word.strip("*?[]").lower()
    close = difflib.get_close_matches(own, names, n=1, cutoff=LIKE)
    pattern = word.lower().replace(own, close[0]) if own and close else word.lower()
    return f" Did you mean {pattern!r}?" if _members(pattern) else ""


def families() -> tuple[str, ...]:
    """Return the families that have a method, in the order of the tables."""
    return tuple(dict.fromkeys(METHODS[name].info.family for name in METHODS))


def _what_there_is() -> str:
    return (
        f"There are {len(METHODS)} methods, which `peft-methods methods` lists, and these families "
        f"of them: {', '.join(families())}."
    )


def with_methods(recipe: Recipe, names: Sequence[str] | None = None) -> Recipe:
    """Return the recipe with a section for every method: groups expanded, `names` added.

    A group (a family, a pattern, `all`) leaves out methods that need settings without a default; a
    note says so. Raises `OptionError` for an unknown name.
    """
    recipe, names = with_task(recipe), tuple(names or ())
    sections = {name: section for name, section in recipe.methods.items() if name in METHODS}
    groups = [name for name in (*recipe.methods, *names) if name not in METHODS]
    named = [name for name in names if name in METHODS]
    notes = list(recipe.notes)
    for group in groups:
        members = methods_named(group)
        if recipe.methods.get(group):
            raise OptionError(
                f"recipe {recipe.name!r}: [methods.{group}] stands for {len(members)} methods and "
                f"has no settings of its own. Set them in the methods' sections, such as "
                f"[methods.{members[0]}]."
            )
        for name in members:
            if name in sections or name in named:
                continue
            if missing := METHODS.missing(name, {}, recipe):
                notes.append(
                    f'{METHODS[name].title} is left out of "{group}": methods.{name}.{missing[0]} '
                    "has no default here; set it to include the method"
                )
            else:
                sections[name] = {}
    sections |= {name: {} for name in named if name not in sections}
    notes = list(dict.fromkeys([*notes, *METHODS.problems, *TASKS.problems]))
    return replace(recipe, methods=sections, notes=tuple(notes))


def chosen_methods(recipe: Recipe, names: Sequence[str] | None = None) -> list[Method]:
    """The recipe's methods, or those that `names` stand for, in the registry's order.

    All sections of the recipe are checked, so that a typo is found even where it is not used.
    Raises `OptionError`.
    """
    recipe = with_methods(recipe, names)
    created = {
        name: METHODS.create(name, section, recipe.name, recipe)
        for name, section in recipe.methods.items()
    }
    wanted = {method for name in names or (ALL,) for method in methods_named(name)}
    return [created[name] for name in METHODS if name in created and name in wanted]
