"""Per-example predictions in NumPy's archive format (.npz).

Reading is optimised for speed: a report reads thousands of small files.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.recipes.schema import DEFAULT_TASK
from peft_methods.tasks.base import Predictions
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.zip_members import zip_reader

TASK = "task"  # the array with the task's name


def encode_predictions(predictions: Predictions, task: str = DEFAULT_TASK) -> bytes:
    """Encode the predictions as the bytes of an .npz file. It names a task that is not the default.

    The arrays are those of the task, some of them for other readers only.
    """
    arrays = dict(predictions.arrays())
    if task != DEFAULT_TASK:
        arrays[TASK] = np.asarray(task)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # no option is among the names
    return file.getvalue()


def read_predictions_file(path: Path) -> Predictions:
    """Read the predictions of an .npz file. Raises what `decode_predictions` does, and OSError."""
    return decode_predictions(path.read_bytes())


def decode_predictions(content: bytes) -> Predictions:
    """Decode the bytes of an .npz file, as its task reads them.

    Raises ValueError, KeyError, EOFError or errors of zipfile or zlib if they are damaged.
    """
    names, read = zip_reader(content)
    task = str(_array(read(f"{TASK}.npy"))) if f"{TASK}.npy" in names else DEFAULT_TASK
    return TASKS[task].restore(lambda name: _array(read(f"{name}.npy")))


def _array(file: bytes) -> NDArray[Any]:
    """Decode an .npy file.

    np.load spends most of its time on parsing the header. Thousands of files share the same header,
    so it is parsed once and cached.
    """
    start = 10 + int.from_bytes(file[8:10], "little")
    shape, fortran, dtype = _header(file[8:start])
    if file[:8] != b"\x93NUMPY\x01\x00" or fortran:
        raise ValueError("not an array in the format of np.save")
    return np.frombuffer(file, dtype, offset=start).reshape(shape)


@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_1_0(io.BytesIO(text))
