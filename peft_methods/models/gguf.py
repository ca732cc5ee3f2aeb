"""GGUF files, the format of llama.cpp, read with numpy: their metadata and their tensors.

The layout follows the format's specification (github.com/ggml-org/ggml, docs/gguf.md, version 3).
Quantized blocks of 32 values are those of ggml: Q8_0 holds `scale * q`, Q4_1 `scale * q + minimum`,
with scale and minimum in fp16. Only what the bundled decoder uses is read; other types raise
`ValueError`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC, VERSIONS = b"GGUF", (2, 3)
DEFAULT_ALIGNMENT = 32  # bytes
BLOCK = 32  # values that share a scale
STRING, ARRAY = 8, 9  # types of metadata values
SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8  # types of tensors
TYPE_NAMES = {F32: "F32", F16: "F16", Q4_1: "Q4_1", Q8_0: "Q8_0"}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in the file: its name, shape (rows first) and type, and where its bytes begin."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class GgufFile:
    """The metadata and the tensors of a GGUF file, whose bytes are `content`."""

    content: bytes
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]

    def values(self, tensor: GgufTensor) -> NDArray[Any]:
        """Return a tensor's values in fp32, dequantized. Raises `ValueError`."""
        import numpy as np

        if tensor.kind not in DEQUANTIZE:
            raise ValueError(
                f"tensor {tensor.name} has the type {tensor.kind}; read are "
                f"{', '.join(TYPE_NAMES.values())}"
            )
        block, dequantize = DEQUANTIZE[tensor.kind]
        fields = np.dtype(block)
        count = math.prod(tensor.shape)
        per_block = 1 if tensor.kind in (F32, F16) else BLOCK
        if count % per_block:
            raise ValueError(f"tensor {tensor.name} has {count} values, not whole blocks")
        if tensor.start + count // per_block * fields.itemsize > len(self.content):
            raise ValueError(f"it ends at byte {len(self.content)}, within tensor {tensor.name}")
        blocks = np.frombuffer(self.content, fields, count // per_block, tensor.start)
        return dequantize(blocks).reshape(tensor.shape)


def _plain(blocks: NDArray[Any]) -> NDArray[Any]:
    return blocks.astype("<f4")


def _q8_0(blocks: NDArray[Any]) -> NDArray[Any]:
    return blocks["scale"].astype("<f4")[:, None] * blocks["q"].astype("<f4")


def _q4_1(blocks: NDArray[Any]) -> NDArray[Any]:
    """Dequantize: the low half of each byte is among the first 16 values, the high half after."""
    import numpy as np

    packed = blocks["q"]
    q = np.concatenate([packed & 15, packed >> 4], axis=1).astype("<f4")
    scaled = blocks["scale"].astype("<f4")[:, None] * q
    return scaled + blocks["minimum"].astype("<f4")[:, None]


DEQUANTIZE: Mapping[int, tuple[Any, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    F32: ("<f4", _plain),
    F16: ("<f2", _plain),
    Q4_1: ([("scale", "<f2"), ("minimum", "<f2"), ("q", "u1", (BLOCK // 2,))], _q4_1),
    Q8_0: ([("scale", "<f2"), ("q", "i1", (BLOCK,))], _q8_0),
}


def parse_gguf(content: bytes) -> GgufFile:
    """Parse a GGUF file. Raises `ValueError` for another file or one that ends too early."""
    reader = _Reader(content)
    if reader.take(4) != MAGIC:
        raise ValueError("it does not begin as a GGUF file does")
    if (version := reader.scalar("I")) not in VERSIONS:
        raise ValueError(f"its GGUF version {version} is not one of {VERSIONS}")
    tensors, entries = reader.scalar("Q"), reader.scalar("Q")
    metadata = {}
    for _ in range(entries):
        name = reader.text()
        metadata[name] = reader.value(reader.scalar("I"))
    described = [reader.tensor() for _ in range(tensors)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    begin = -(-reader.place // alignment) * alignment
    return GgufFile(
        content,
        metadata,
        tuple(GgufTensor(name, shape, kind, begin + at) for name, shape, kind, at in described),
    )


class _Reader:
    """A position in the file's bytes that moves forward with each value."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        taken = self.content[self.place : self.place + count]
        if len(taken) < count:
            raise ValueError(f"it ends at byte {len(self.content)}, within a value")
        self.place += count
        return taken

    def scalar(self, code: str) -> Any:
        """Return the next number; `code` is that of `struct`, little-endian."""
        code = f"<{code}"
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def text(self) -> str:
        """Return the next text."""
        return self.take(self.scalar("Q")).decode("utf-8")

    def value(self, kind: int) -> Any:
        """Return the next metadata value of a type: a number, a text or a list."""
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            inner, count = self.scalar("I"), self.scalar("Q")
            return [self.value(inner) for _ in range(count)]
        if kind not in SCALARS:
            raise ValueError(f"its metadata has a value of the unknown type {kind}")
        return self.scalar(SCALARS[kind])

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return the next tensor's name, shape, type and offset. Sizes are stored last first."""
        name = self.text()
        sizes = [self.scalar("Q") for _ in range(self.scalar("I"))]
        return name, tuple(reversed(sizes)), self.scalar("I"), self.scalar("Q")
