"""Parts that other installed packages bring: methods, tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, TypeVar

from peft_methods.utils.errors import first_line

T = TypeVar("T")


def installed(
    group: str, kind: str, check: Callable[[Any, Mapping[str, T]], tuple[str, T]]
) -> tuple[dict[str, T], dict[str, str]]:
    """Load the entry points of a group.

    `check` returns the name and the object of a loaded entry point, given those found so far, or
    raises an error. Returns the objects by name, and one line for each entry point that cannot be
    used, by its own name.
    """
    found: dict[str, T] = {}
    broken: dict[str, str] = {}
    for point in metadata.entry_points(group=group):
        try:
            name, loaded = check(point.load(), found)
        except Exception as error:  # whatever another package's import raises
            whose = f"the package {point.dist.name!r}" if point.dist else "a package"
            broken[point.name] = (
                f"{whose} brings a {kind} {point.name!r} ({point.value}) that cannot be used: "
                f"{first_line(error)}. Update or uninstall that package."
            )
        else:
            found[name] = loaded
    return found, broken
