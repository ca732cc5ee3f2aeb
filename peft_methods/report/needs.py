"""What can be asked of what is to be written before anything is trained."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from peft_methods.errors import OptionError

NEEDED = {"jinja2": "Jinja2", "matplotlib": "matplotlib"}  # for a report


def check_report(option: str) -> None:
    """Raise `OptionError` where something that a report needs is not installed."""
    lacking = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if lacking:
        raise OptionError(
            f"{option} needs {' and '.join(lacking)}: pip install 'peft-methods[report]'."
        )


def check_folder(folder: Path, option: str) -> None:
    """Make the folder if need be. Raise `OptionError` where nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError:
        raise OptionError(f"{option} {str(folder)!r} is a file; give a folder.") from None
    except OSError as error:
        raise OptionError(
            f"{option} {str(folder)!r} cannot be written to: {error.strerror}."
        ) from None
