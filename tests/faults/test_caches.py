"""What is kept from run to run is spoilt: it is made anew, and no figure changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.ground import Ground

pytestmark = pytest.mark.faults


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def garble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :: 7] = b"\xff" * len(content[len(content) // 2 :: 7])
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def be_a_folder(file: Path) -> None:
    file.unlink()
    (file / "in the way").mkdir(parents=True)


@pytest.mark.parametrize("spoil", [cut, garble, empty, be_a_folder])
def test_spoilt_tokens(ground: Callable[..., Ground], tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    kind, cache = "a spoilt cache", str(tmp_path / "cache")
    here = ground(methods=("head_only",), seeds=2)
    here.complete(kind, XDG_CACHE_HOME=cache)
    files = [path for path in (tmp_path / "cache" / "peft-methods" / "tokens").iterdir() if path.is_file()]
    assert files
    for file in files:
        spoil(file)
    before = here.finished()
    here.seeds = 4
    here.complete(kind, XDG_CACHE_HOME=cache)
    here.count(kind, before, faults=len(files))


def test_files_where_folders_should_be(ground: Callable[..., Ground], tmp_path: Path) -> None:
    kind, root = "a spoilt cache", tmp_path / "cache" / "peft-methods"
    here = ground(methods=("head_only",), seeds=2)
    root.mkdir(parents=True)
    for name in ("tokens", "compiled"):
        (root / name).write_text("in the way", encoding="utf-8")
    here.complete(kind, XDG_CACHE_HOME=str(root.parent))
    here.count(kind, here.finished(), faults=2)
    shutil.rmtree(root.parent)
    root.parent.write_text("in the way", encoding="utf-8")
    before = here.finished()
    here.seeds = 4
    here.complete(kind, XDG_CACHE_HOME=str(root.parent))
    here.count(kind, before)
