"""Bytecode of libraries that were installed without it, kept in the user's cache.

Container images often install packages without bytecode and set PYTHONDONTWRITEBYTECODE. Then every
process compiles torch and transformers from their sources first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from peft_methods.utils.cache import cache_folder

LIBRARY = "transformers"  # the one with the most code


def environment_with_bytecode(library: str = LIBRARY) -> dict[str, str]:
    """Return environment variables with which Python keeps the library's bytecode.

    Empty if it has some, or if Python can write it beside the sources.
    """
    spec = importlib.util.find_spec(library)
    if spec is None or spec.cached is None or Path(spec.cached).is_file():
        return {}
    beside = Path(spec.cached).parent.parent
    if not sys.dont_write_bytecode and (sys.pycache_prefix or os.access(beside, os.W_OK)):
        return {}
    return {"PYTHONPYCACHEPREFIX": str(cache_folder() / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
