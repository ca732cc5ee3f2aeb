"""What is kept from run to run is spoilt: it is made anew, and no figure changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.ground import Ground, Ledger
from peft_methods.caching import remembered
from peft_methods.rows import Rows

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
def test_spoilt_tokens_are_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ledger: Ledger, spoil: Callable[[Path], None]
) -> None:
    """Runs keep them for thousands of rows alone, so what keeps them is asked here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def make() -> Rows:
        made.append(1)
        return Rows.of(
            {"input_ids": [[1, 2, 3]] * 500, "attention_mask": [[1, 1, 1]] * 500}, [0, 1] * 250
        )

    def tokens() -> list[int]:
        found = remembered("tokens", "key", make, read=Rows.read, write=Rows.write, suffix=".npz")
        return [int(length) for length in found.lengths]

    whole = tokens()
    assert (tokens(), len(made)) == (whole, 1)
    (file,) = (tmp_path / "peft-methods" / "tokens").iterdir()
    spoil(file)
    assert (tokens(), len(made)) == (whole, 2)
    ledger.faults["a spoilt cache"] += 1


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
