"""Weights in the safetensors files of a folder, read without building a model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peft_methods.models.bundled import MODELS
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.cache import cache_folder
from peft_methods.utils.errors import ModelError
from peft_methods.utils.files import path_of

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "*.safetensors"
SINGLE_FILE = "model.safetensors"
HEADER_BYTES = 8  # a safetensors file begins with the length of its JSON header
CHUNK = 2**24


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its name, type and shape, and where its bytes are."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def form(self) -> tuple[str, tuple[int, ...]]:
        """Type and shape."""
        return self.dtype, self.shape

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes, a few at a time."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            left = self.end - self.start
            while left > 0 and (chunk := file.read(min(left, CHUNK))):
                left -= len(chunk)
                yield chunk

    def sha256(self) -> str:
        """Return the sha256 of its bytes."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """Return the tensors of every safetensors file in a folder; empty if one is damaged."""
    try:
        return [tensor for file in sorted(folder.glob(WEIGHTS)) for tensor in _tensors(file)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _tensors(path: Path) -> Iterator[StoredTensor]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_BYTES), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path.name} is shorter than its header")
        header = json.loads(file.read(length))
    offset = HEADER_BYTES + length
    for name, about in header.items():
        if name != "__metadata__":
            start, end = (offset + place for place in about["data_offsets"])
            yield StoredTensor(path, name, about["dtype"], tuple(about["shape"]), start, end)


def poolers_untrained_in(folder: str, poolers: dict[str, nn.Linear]) -> set[str]:
    """Return the parameters of poolers that the weights in this folder lack or leave untrained.

    Training would have changed the bias from zero. Empty for a folder without weights, and for a
    hub id: then nothing is known about the poolers.
    """
    biases = {one.name: one for one in stored_tensors(Path(folder)) if one.name.endswith("bias")}
    idle = [
        name
        for name in (poolers if biases else ())
        if not any(
            f"{name}.bias".endswith(stored) and any(map(any, tensor.chunks()))
            for stored, tensor in biases.items()
        )
    ]
    return {f"{name}.{part}" for name in idle for part in ("weight", "bias")}


def have_same_weights(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether two models on this machine hold the same tensors, whatever their names.

    False where one of them would have to be downloaded. Integer tensors such as position ids are
    no weights.
    """
    first, second = (_floats(spec) for spec in (one, other))
    if not first or Counter(t.form for t in first) != Counter(t.form for t in second):
        return False
    return Counter(t.sha256() for t in first) == Counter(t.sha256() for t in second)


def _floats(spec: ModelSpec) -> list[StoredTensor]:
    folder = _local_folder(spec)
    tensors = [] if folder is None else stored_tensors(folder)
    return [tensor for tensor in tensors if "F" in tensor.dtype]


def _local_folder(spec: ModelSpec) -> Path | None:
    """Return the folder of a model's weights if it is on this machine."""
    if spec.source.startswith(PREFIX):
        package = MODELS.get(spec.source.removeprefix(PREFIX))
        return None if package is None else cache_folder() / package.folder
    folder = path_of(spec.source)
    if folder is not None:
        return folder
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(spec.source, SINGLE_FILE, revision=spec.revision)
    except ValueError:  # no name of a hub repository
        return None
    return Path(found).parent if isinstance(found, str) else None


def require_all(missing: Collection[str], file: Path) -> None:
    """Raise `ModelError` if a saved model lacks a tensor: libraries would use a random one."""
    if missing:
        raise ModelError(
            f"{file} lacks {len(missing)} tensors of this method (the first is {min(missing)}). "
            "Copy or save the model again."
        )
