"""All methods by name: those of this package and those that other installed packages bring."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib import util
from types import ModuleType
from typing import Any

from peft_methods.methods.base import FAMILIES, Method, MethodInfo
from peft_methods.recipes.schema import Recipe
from peft_methods.utils.entry_points import installed
from peft_methods.utils.errors import OptionError, unknown
from peft_methods.utils.validation import build, check_fields

# Adding a method changes no fingerprint: see `code_fingerprint`.
IS_REGISTRY = True
PACKAGE = "peft_methods.methods"
GROUP = "peft_methods.methods"  # entry points: NAME = "package.module:Class"
ALL = "all"
RESERVED = (ALL, "include")  # words of a recipe's [methods] section


class Registry:
    """Every method by name, in the order of the tables. Methods are looked for at the first use."""

    def __init__(self, methods: Iterable[type[Method]] | None = None) -> None:
        self._given = methods
        self._broken: dict[str, str] = {}

    @cached_property
    def _methods(self) -> dict[str, type[Method]]:
        if self._given is not None:
            return {method.name: method for method in self._given}
        found = {method.name: method for method in built_in()}
        brought, self._broken = installed(
            GROUP, "a method", lambda loaded, others: _checked(loaded, {**found, **others})
        )
        every = {**found, **brought}
        return dict(sorted(every.items(), key=lambda item: item[1].info.rank))

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each installed method that cannot be loaded."""
        return tuple(self.broken.values())

    @property
    def broken(self) -> Mapping[str, str]:
        """Why an installed method cannot be loaded, by its name."""
        return self._broken if self._methods else {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def __contains__(self, name: object) -> bool:
        return name in self._methods

    def __getitem__(self, name: str) -> type[Method]:
        if name in self._methods:
            return self._methods[name]
        if name in self._broken:
            raise OptionError(self._broken[name])
        raise OptionError(unknown("method", name, self._methods))

    def info(self, name: str | None) -> MethodInfo | None:
        """The description of a method; None for a name that is not registered."""
        return self._methods[name].info if name in self._methods else None

    @property
    def reference(self) -> str:
        """The first method that trains all weights. Costs are given relative to it."""
        return next(name for name in self if self[name].info.scope == "all")

    def create(
        self, name: str, settings: Mapping[str, Any], where: str, recipe: Recipe | None = None
    ) -> Method:
        """Build a method from its settings. Raises `OptionError` that names the wrong one.

        With a `recipe`, settings that are not given take the method's defaults for that recipe.
        """
        section = f"{where}, [methods.{name}]"
        return build(self[name], self._completed(name, settings, recipe), section)

    def _completed(
        self, name: str, settings: Mapping[str, Any], recipe: Recipe | None
    ) -> dict[str, Any]:
        if recipe is None:
            return dict(settings)
        given = {key: value for key, value in settings.items() if value is not None}
        defaults = self[name].defaults(recipe)
        if "learning_rate" in given:  # the default rate of the head belongs to the default rate
            defaults.pop("head_learning_rate", None)
        return {**defaults, **given}

    def missing(self, name: str, settings: Mapping[str, Any], recipe: Recipe) -> tuple[str, ...]:
        """The settings that have neither a value nor a default for this recipe."""
        completed = self._completed(name, settings, recipe)
        return tuple(one for one in self[name].required() if one not in completed)

    def recognize(self, text: str) -> str | None:
        """The method that a table made elsewhere calls `text`; None for an unknown or unclear name.

        A specific word wins over one that it contains ("QLoRA" over "LoRA"), and over every generic
        word ("LoRA adapters" is LoRA). Two specific words of different methods are unclear.
        """
        words, spans, excluded = text.casefold(), {}, False
        for name in self:
            if (span := _span(self[name].info.aliases, words)) is not None:
                if _span(self[name].info.not_aliases, words) is None:
                    spans[name] = span
                else:
                    excluded = True
        whole = {name for name, span in spans.items() if not _is_covered(span, spans.values())}
        if spans or excluded:
            return whole.pop() if len(whole) == 1 else None
        generic = {
            name: span
            for name in self
            if (span := _span(self[name].info.generic_aliases, words)) is not None
            and _span(self[name].info.not_aliases, words) is None
        }
        return max(generic, key=lambda name: _length(generic[name]), default=None)


Span = tuple[int, int]


def _span(pattern: str, text: str) -> Span | None:
    found = re.search(pattern, text) if pattern else None
    return found.span() if found else None


def _length(span: Span) -> int:
    return span[1] - span[0]


def _is_covered(span: Span, others: Iterable[Span]) -> bool:
    """Whether a longer span overlaps this one."""
    return any(
        other[0] < span[1] and span[0] < other[1] and _length(other) > _length(span)
        for other in others
    )


def built_in() -> list[type[Method]]:
    """The methods of this package and its sub-packages, one or more a file.

    Files without a `MethodInfo` hold helpers. They are not imported, since they may import torch.
    """
    package = importlib.import_module(PACKAGE)
    found: list[type[Method]] = []
    for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        if not module.ispkg and _mentions_info(module.name):
            found += methods_in(importlib.import_module(module.name))
    return found


def _mentions_info(module: str) -> bool:
    spec = util.find_spec(module)
    source = getattr(spec.loader, "get_source", lambda _: None)(module) if spec else None
    return source is None or MethodInfo.__name__ in source


def methods_in(module: ModuleType) -> list[type[Method]]:
    """The methods that a module defines."""
    return [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, Method)
        and one.__module__ == module.__name__
        and "info" in vars(one)
    ]


def _checked(loaded: Any, known: Mapping[str, type[Method]]) -> tuple[str, type[Method]]:
    """An entry point's method. Raises `TypeError` or `ValueError` if it cannot be used."""
    if not (isinstance(loaded, type) and issubclass(loaded, Method)):
        raise TypeError(f"{loaded!r} is not a subclass of peft_methods.methods.Method")
    if not isinstance(getattr(loaded, "info", None), MethodInfo):
        raise TypeError(f"{loaded.__name__}.info is not a MethodInfo")
    _check_texts(loaded.info)
    check_fields(loaded)
    name = loaded.info.name
    if name in known or name in RESERVED or name in FAMILIES:
        raise ValueError(f"the name {name!r} is taken")
    return name, loaded


def _check_texts(info: MethodInfo) -> None:
    """Raise `ValueError` for a text that the lists and tables could not show, or search for."""
    for key in ("name", "title", "family", "paper", "trained", "about"):
        if not isinstance(text := getattr(info, key), str) or not text.strip():
            raise ValueError(f"info.{key} = {text!r} should be a text")
    if not re.fullmatch(r"[a-z0-9_]+", info.name):
        raise ValueError(f"the name {info.name!r} should be lower-case letters, digits and '_'")
    for key in ("aliases", "generic_aliases", "not_aliases"):
        try:
            re.compile(pattern := getattr(info, key))
        except (re.error, TypeError) as error:
            raise ValueError(
                f"info.{key} = {pattern!r} is not a regular expression: {error}"
            ) from None


METHODS = Registry()
