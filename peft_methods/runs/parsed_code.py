"""Parsed source code, kept in the cache: parsing the package takes longer than a reused session."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from typing import Any

from peft_methods.utils import code_parsing
from peft_methods.utils.cache import cached_value
from peft_methods.utils.code_parsing import Code, parse, sha256
from peft_methods.utils.validation import adapter

KIND = "code"  # the cache's folder
MAX_FILES = 2000  # of it, each of one version of one module: a few KiB


def parsed(source: str | bytes, package: str) -> Code:
    """Return a module's parsed source. `package` is what its relative imports start from.

    Source that is no valid Python stands for itself: whatever imports it fails or handles that.
    """
    key = {"source": sha256(source), "package": package, "parser": _parser()}
    values = cached_value(KIND, key, lambda: _parse(source, package), MAX_FILES)
    return adapter(Code).validate_python(values)


def _parse(source: str | bytes, package: str) -> Any:
    """Return the fields of `Code` as JSON values."""
    try:
        code = parse(ast.parse(source), package)
    except (SyntaxError, ValueError):
        code = Code(sha256(source))
    return adapter(Code).dump_python(code, mode="json")


@cache
def _parser() -> list[str]:
    """What the result depends on beside the source: syntax trees differ between Pythons."""
    return [sys.version, sha256(inspect.getsource(code_parsing))]
