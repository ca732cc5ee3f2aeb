"""Parts that other installed packages bring: methods, tasks and executors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, TypeVar

from peft_methods.utils.errors import first_line

T = TypeVar("T")


def installed(
    group: str, kind: str, check: Callable[[Any, Mapping[str, T]], tuple[str, T]]
) -> tuple[dict[str, T], dict[str, str]]:
    """Load the entry points of a group. `kind` names one of them: "a method".

    `check` returns the name and the object of a loaded entry point, given those found so far, or
    raises an error. Returns the objects by name, and one line for each entry point that cannot be
    used, by its own name.
    """
    found: dict[str, T] = {}
    broken: dict[str, str] = {}
    for point in metadata.entry_points(group=group):
        try:
            name, loaded = check(point.load(), found)
        except (Exception, SystemExit) as error:  # whatever another package's import raises
            broken[point.name] = unusable(kind, point, error)
        else:
            found[name] = loaded
    return found, broken


def unusable(kind: str, point: metadata.EntryPoint, error: BaseException) -> str:
    """Return one line that names the package, its entry point and the error. `kind`: "a method"."""
    package = f"the package {point.dist.name!r}" if point.dist else "a package"
    return (
        f"{package} brings {kind} {point.name!r} ({point.value}) that cannot be used: "
        f"{first_line(error)}. Update or uninstall that package."
    )
