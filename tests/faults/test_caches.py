"""Damaged caches: their content is computed again, and no result changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.ground import Ground, Ledger
from peft_methods.data.token_rows import TokenRows
from peft_methods.utils.cache import cached

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


@pytest.mark.parametrize("damage", [cut, garble, empty, be_a_folder])
def test_damaged_token_cache_is_rebuilt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ledger: Ledger, damage: Callable[[Path], None]
) -> None:
    """Runs cache tokens only for thousands of rows, so the cache is tested directly."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def make() -> TokenRows:
        made.append(1)
        return TokenRows.of(
            {"input_ids": [[1, 2, 3]] * 500, "attention_mask": [[1, 1, 1]] * 500}, [0, 1] * 250
        )

    def tokens() -> list[int]:
        found = cached(
            "tokens", "key", make, read=TokenRows.read, write=TokenRows.write, suffix=".npz"
        )
        return [int(length) for length in found.lengths]

    whole = tokens()
    assert (tokens(), len(made)) == (whole, 1)
    (file,) = (tmp_path / "peft-methods" / "tokens").iterdir()
    damage(file)
    assert (tokens(), len(made)) == (whole, 2)
    ledger.faults["a damaged cache"] += 1


def test_session_completes_when_files_block_the_cache_folders(
    ground: Callable[..., Ground], tmp_path: Path
) -> None:
    kind, root = "a damaged cache", tmp_path / "cache" / "peft-methods"
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
    private = f"peft-methods-cache-{os.geteuid()}"  # stays, as a cache should
    run = here.complete(kind, kept=[private], XDG_CACHE_HOME=str(root.parent))
    assert f"Files are cached in {run.tmp / private} instead" in " ".join(run.text.split())
    here.count(kind, before)
