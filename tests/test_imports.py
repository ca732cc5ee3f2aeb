"""Imports point one way, and the plugin costs a pytest run nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import peft_methods

PACKAGE = Path(peft_methods.__file__).parent
ORDER = (
    "escaping", "errors", "units", "building", "recipe", "layouts", "shapes", "embedded", "caching", "classes", "reading", "overlap",
    "rows", "data",
    "configs", "models", "synthetic", "methods", "determinism", "nvml", "environment", "quality", "metrics",
    "engines", "code_parsing", "code_fingerprint", "cells", "measuring", "attribution", "flops", "inference", "instruments", "records", "npz", "store", "resuming",
    "checking", "checkpoints",
    "saving", "validity", "starting", "runner", "execution", "statistics", "standing", "comparing",
    "recommending", "baseline", "tolerances", "gate", "gathering", "tuning", "tasks", "job",
    "report", "api", "option_values", "options", "gating", "summary", "terminal", "interrupts", "plugin",
    "columns", "plain_tables", "audit", "reporting", "__main__",
)  # fmt: skip


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The package's own layers that a file imports, wherever in it and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("peft_methods")
        ):
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("peft_methods.")
            }
    return found


def test_imports_point_one_way() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert {layer(path) for path in files} == set(ORDER)
    for path in files:
        late = {name for name in imported(path) if ORDER.index(name) > ORDER.index(layer(path))}
        assert not late, f"{path.name} imports {late}, which come after it"


def test_no_file_is_long() -> None:
    lengths = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "pandas", "matplotlib")
    code = f"import sys, peft_methods.plugin, peft_methods.job; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
