"""Parsed code is kept in the cache, and what is kept is what parsing gives."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from peft_methods.runs.parsed_code import KIND, parsed
from peft_methods.utils.cache import cache_folder
from peft_methods.utils.code_parsing import Code, parse, sha256

SOURCE = '''
"""A module."""
import numpy as np
from .other import *
__all__ = ["a", "\\udc80"]
IS_REGISTRY = True
a = np.linalg.norm
'''


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_kept_code_is_what_parsing_gives() -> None:
    expected = parse(ast.parse(SOURCE), "acme")
    assert parsed(SOURCE, "acme") == expected  # made
    assert parsed(SOURCE, "acme") == expected  # read
    assert len(list((cache_folder() / KIND).iterdir())) == 1


def test_the_package_of_relative_imports_and_the_source_count() -> None:
    assert parsed(SOURCE, "acme").imports != parsed(SOURCE, "ajax").imports
    assert parsed(SOURCE, "acme").digest != parsed(SOURCE + "b = 1\n", "acme").digest


def test_a_damaged_file_is_parsed_again() -> None:
    expected = parsed(SOURCE, "acme")
    [file] = (cache_folder() / KIND).iterdir()
    file.write_text(file.read_text("utf-8").replace("norm", "nrom"), encoding="utf-8")
    assert parsed(SOURCE, "acme") == expected


@pytest.mark.parametrize("source", ["def (", b"\xff = 1", "a\0b"])
def test_what_is_no_python_stands_for_itself(source: str | bytes) -> None:
    assert parsed(source, "acme") == parsed(source, "acme") == Code(sha256(source))
