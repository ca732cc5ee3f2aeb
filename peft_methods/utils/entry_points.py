"""Messages about entry points of other packages that cannot be used."""

from __future__ import annotations

from importlib import metadata

from peft_methods.utils.errors import first_line


def unusable(kind: str, point: metadata.EntryPoint, error: Exception) -> str:
    """Return one line that names the package, its entry point and the error. `kind`: "a method"."""
    package = f"the package {point.dist.name!r}" if point.dist else "a package"
    return (
        f"{package} brings {kind} {point.name!r} ({point.value}) that cannot be used: "
        f"{first_line(error)}. Update or uninstall that package."
    )
