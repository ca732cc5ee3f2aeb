"""The size of a safetensors file, computed without writing it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

# Names of the format (https://github.com/huggingface/safetensors#format), in the order of a file.
NAMES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
LENGTH_BYTES = 8  # the header's length comes first
ALIGNMENT = 8  # the header is filled up with blanks


def safetensors_bytes(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> int:
    """Return the bytes of the file that `safetensors.torch.save_file` writes.

    Its header holds metadata, dtypes, shapes and offsets as JSON. Dtypes come in the order of
    `NAMES`, tensors of one dtype in that of their names.
    """
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    order = {dtype: place for place, dtype in enumerate(NAMES)}
    for name, tensor in sorted(
        tensors.items(), key=lambda item: (order.get(item[1].dtype, -1), item[0])
    ):
        start, end = end, end + tensor.nbytes
        dtype = NAMES.get(tensor.dtype, str(tensor.dtype))
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return LENGTH_BYTES + -(-len(text) // ALIGNMENT) * ALIGNMENT + end
