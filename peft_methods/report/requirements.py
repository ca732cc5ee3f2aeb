"""Checks made before training: the report's libraries are installed, output folders writable."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from peft_methods.utils.errors import OptionError

REQUIRED_LIBRARIES = {"jinja2": "Jinja2", "matplotlib": "matplotlib"}  # for a report


def has_libraries(*modules: str) -> bool:
    """Whether all of these modules are installed."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def check_libraries() -> None:
    """Raise `OptionError` if a library that the report needs is not installed."""
    missing = [
        name
        for module, name in REQUIRED_LIBRARIES.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise OptionError(
            f"a report needs {' and '.join(missing)}: pip install 'peft-methods[report]'."
        )


def check_folder(folder: Path, setting: str) -> None:
    """Create the folder if it does not exist. Raise `OptionError` if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError:
        raise OptionError(
            f"{setting} {str(folder)!r} is a file; give a folder.", setting=setting
        ) from None
    except OSError as error:
        raise OptionError(
            f"{setting} {str(folder)!r} cannot be written to: {error.strerror}.", setting=setting
        ) from None
