"""Checkpoints: a run's training state after an epoch, on disk.

A killed process then loses one epoch, not all.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from peft_methods.runs.scaling import on_one_gpu
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import SET_ASIDE, Store
from peft_methods.training.engine import TrainingState
from peft_methods.utils.errors import first_line
from peft_methods.utils.hashing import content_hash

FORMAT = 1
SUFFIX = ".safetensors"


class Checkpoints:
    """A run's folder of checkpoints.

    A file holds one epoch's state, tensors and JSON; only the newest file is kept. `key` hashes
    everything the run's result depends on: a checkpoint with another key is not used. Errors here
    never fail a run: `notes` describes what could not be read or written. `resumed_after` lists the
    epochs after which another process resumed the run, which may use another number of GPUs.
    """

    def __init__(self, results: Path, run: RunSpec, key: Any) -> None:
        self.folder = Store(results).checkpoints_of(on_one_gpu(run).key)
        self.aside = results / SET_ASIDE
        self.key = content_hash({"format": FORMAT, "key": key})
        self.resumed_after: list[int] = []
        self.notes: list[str] = []

    def newest(self) -> TrainingState | None:
        """Load the newest intact state of this exact run, or None.

        Half-written files of killed processes are removed.
        """
        for scratch in self.folder.glob(f".*{SUFFIX}"):
            scratch.unlink(missing_ok=True)
        state = self._newest()
        if self.resumed_after:
            after = " and ".join(map(str, self.resumed_after))
            self.notes.append(
                f"resumed after epoch {after}; training time and peaks cover all processes"
            )
        elif self.notes:
            self.notes.append("training started from the beginning")
        return state

    def _newest(self) -> TrainingState | None:
        for path in sorted(self.folder.glob(f"epoch-*{SUFFIX}"), key=_epoch_of, reverse=True):
            try:
                tensors, values = _read(path)
            except (SafetensorError, ValueError, KeyError, TypeError) as error:
                self._set_aside(path, error)
                continue
            except OSError as error:
                self.notes.append(f"checkpoint {path} cannot be read: {error.strerror}")
                continue
            if values["key"] != self.key:
                self.notes.append(
                    f"checkpoint {path.name} was not used: "
                    "it belongs to other code, weights, data or versions"
                )
                continue
            self.resumed_after = [*values["resumed_after"], values["epoch"]]
            return TrainingState(values["epoch"], tensors, values["state"])
        return None

    def save(self, state: TrainingState) -> None:
        """Write the state, then delete the earlier ones."""
        values = {
            "key": self.key,
            "epoch": state.epoch,
            "resumed_after": self.resumed_after,
            "state": state.values,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / f"epoch-{state.epoch}{SUFFIX}", state.tensors, values)
            for path in self.folder.glob(f"epoch-*{SUFFIX}"):
                if _epoch_of(path) < state.epoch:
                    path.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            self.notes.append(
                f"the checkpoint after epoch {state.epoch} could not be written: "
                f"{first_line(error)}"
            )

    def _set_aside(self, path: Path, error: Exception) -> None:
        aside = self.aside / f"{self.folder.name}-{uuid.uuid4().hex[:8]}-{path.name}"
        note = f"checkpoint {path.name} is damaged ({first_line(error)})"
        with contextlib.suppress(OSError):
            self.aside.mkdir(exist_ok=True)
            os.replace(path, aside)
            note += f" and was moved to {aside}"
        self.notes.append(note)


def _epoch_of(path: Path) -> int:
    number = path.name.removeprefix("epoch-").removesuffix(SUFFIX)
    return int(number) if number.isdecimal() else 0


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    if int(metadata["checksum"]) != _checksum(tensors, metadata["values"]):
        raise ValueError("its content has changed since it was written")
    return tensors, json.loads(metadata["values"])


def _write(path: Path, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
    """Write to a temporary file, sync it and rename it, so that `path` is always complete."""
    scratch = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{SUFFIX}")
    text = json.dumps(values)
    try:
        save_file(
            dict(tensors), scratch, {"values": text, "checksum": str(_checksum(tensors, text))}
        )
        _sync(scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checksum(tensors: Mapping[str, torch.Tensor], text: str) -> int:
    """CRC-32 over all bytes, in the order of the tensors' names.

    safetensors itself detects a truncated file, but not a flipped bit.
    """
    found = zlib.crc32(text.encode())
    for name in sorted(tensors):
        flat = tensors[name].reshape(-1).view(torch.uint8).numpy()
        content = memoryview(flat)  # type: ignore[arg-type]  # numpy's stubs before 2
        found = zlib.crc32(content, zlib.crc32(name.encode(), found))
    return found
