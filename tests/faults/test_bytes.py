"""Files truncated at any byte, or with a changed byte.

They are reported and set aside, never read as valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import make_record, runs
from faults.ground import METHODS, Ledger, undisturbed
from peft_methods.runs.checkpoints import Checkpoints
from peft_methods.runs.store import Store, StoreError
from peft_methods.training.state import TrainingState


def cut(content: bytes, every: int = 1) -> Iterator[bytes]:
    """Yield the content truncated at each byte, starting empty."""
    return (content[:length] for length in range(0, len(content), every))


def flipped(content: bytes, every: int) -> Iterator[bytes]:
    """Yield the content with one bit changed in one byte."""
    return (
        content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
        for at in range(0, len(content), every)
    )


def check_truncated_record(store: Store, path: Path, ledger: Ledger, every: int = 1) -> None:
    """Check that each truncated record is reported and set aside, and no other is touched."""
    others = {other: other.read_bytes() for other in store.folder.glob("*.json") if other != path}
    for part in cut(path.read_bytes(), every):
        path.write_bytes(part)
        good, unfit = store.records()
        assert [file.path for file in unfit] == [path]
        assert len(good) == len(others)
        (line,) = store.set_aside(unfit)
        assert f"{path} is not a valid record" in line
        assert not path.exists()
        (aside,) = (store.folder / "set_aside").iterdir()
        assert aside.read_bytes() == part
        aside.unlink()
        ledger.faults["a record cut at a byte"] += 1
    assert {other: other.read_bytes() for other in others} == others


def test_record_truncated_at_some_bytes_is_set_aside(tmp_path: Path, ledger: Ledger) -> None:
    """The sample that always runs."""
    store = Store(tmp_path)
    store.write(make_record("ia3", fingerprint="another"))
    check_truncated_record(store, store.write(make_record()), ledger, every=29)


@pytest.fixture
def store(site: Path, tmp_path: Path) -> Store:
    """A store with a finished run and a prerequisite from a real session."""
    undisturbed(site, METHODS, 5)
    records = Store(site / f"undisturbed-{'-'.join(METHODS)}-5").records()[0]
    made = Store(tmp_path / "results")
    made.folder.mkdir()
    for record in (
        next(r for r in records if r.role != "main"),
        next(r for r in records if r.role == "main"),
    ):
        for end in (".json", *record.files):
            name = f"{record.fingerprint}{end}"
            (made.folder / name).write_bytes(
                (site / f"undisturbed-{'-'.join(METHODS)}-5" / name).read_bytes()
            )
    return made


@pytest.mark.faults
def test_record_truncated_at_every_byte_is_set_aside(store: Store, ledger: Ledger) -> None:
    for path in sorted(store.folder.glob("*.json")):
        content = path.read_bytes()
        check_truncated_record(store, path, ledger)
        path.write_bytes(content)


@pytest.mark.faults
def test_damaged_files_beside_a_record_are_detected(store: Store, ledger: Ledger) -> None:
    kinds = {
        ".npz": "predictions cut or changed",
        ".safetensors": "a prerequisite's weights cut or changed",
    }
    for record in store.records()[0]:
        ((end, _),) = record.files.items()
        path = store.folder / f"{record.fingerprint}{end}"
        content = path.read_bytes()
        step = 1 if end == ".npz" else 97
        for damaged in (*cut(content, step), *flipped(content, step)):
            path.write_bytes(damaged)
            assert store.damage(record) == f"{path} has changed since it was written"
            try:
                store.read_predictions(record)
            except StoreError as error:
                assert str(path) in str(error)
            ledger.faults[kinds[end]] += 1
        path.write_bytes(content)
        assert store.damage(record) == ""


@pytest.mark.faults
def test_damaged_checkpoint_is_set_aside(tmp_path: Path, ledger: Ledger, tiny_recipe: Path) -> None:
    run = runs(tiny_recipe, "lora")[0]
    values: dict[str, Any] = {"losses": [0.5, 0.25], "words": "x" * 300}
    earlier, later = (
        TrainingState(epoch, {"a": torch.arange(99.0), "b": torch.ones(7)}, values)
        for epoch in (1, 2)
    )
    checkpoints = Checkpoints(tmp_path, run, "key")
    checkpoints.save(later)
    (file,) = checkpoints.folder.iterdir()
    content = file.read_bytes()
    file.unlink()
    checkpoints.save(earlier)
    for damaged in (*cut(content), *flipped(content, 1)):
        file.write_bytes(damaged)
        found = Checkpoints(tmp_path, run, "key")
        state = found.newest()
        assert state is not None
        if same := state.epoch == 2:  # the changed byte was padding of the header
            assert state.values == values
            assert all(
                torch.equal(state.tensors[name], later.tensors[name]) for name in later.tensors
            )
        else:
            assert state.epoch == 1
            assert "is damaged" in found.notes[0]
            assert not file.exists()
        assert not (same and len(damaged) < len(content))
        ledger.faults["a checkpoint cut or changed at a byte"] += 1
