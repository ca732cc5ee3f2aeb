"""Bytecode of libraries that were installed without it is kept in the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peft_methods.runs.executors.bytecode import environment_with_bytecode
from peft_methods.utils.cache import cache_folder


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a library without bytecode, in a Python told not to write any."""
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "some_library.py").write_text("ANSWER = 42\n", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def use(library: Path) -> None:
    """Import the library in a process of its own."""
    environment = {**os.environ, **environment_with_bytecode("some_library")}
    code = f"import sys; sys.path.insert(0, {str(library)!r}); import some_library"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_bytecode_is_kept_in_the_cache(library: Path) -> None:
    use(library)
    kept = list((cache_folder() / "bytecode").rglob("some_library*.pyc"))
    assert len(kept) == 1
    assert not (library / "__pycache__").exists()
    written = kept[0].stat().st_mtime_ns
    use(library)
    assert kept[0].stat().st_mtime_ns == written, "read, not made again"


def test_python_that_writes_bytecode_is_left_alone(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert environment_with_bytecode("some_library") == {}


def test_library_with_bytecode_is_left_alone(library: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(library)!r}); import some_library"
    usual = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([sys.executable, "-c", code], env=usual, check=True)
    assert environment_with_bytecode("some_library") == {}
