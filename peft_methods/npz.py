"""Per-example predictions as NumPy's archive (.npz), written whole and read lean: thousands of small ones are read for a report."""

from __future__ import annotations

import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.quality import Predictions


def as_npz(predictions: Predictions) -> bytes:
    """Logits and labels, and what follows from them for other readers: probabilities and predicted classes."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        logits=predictions.logits,
        probabilities=predictions.probabilities,
        predicted=predictions.predicted,
        labels=predictions.labels,
    )
    return file.getvalue()


def from_npz(path: Path) -> Predictions:
    """Logits and labels alone. Raises OSError, ValueError, KeyError, EOFError, zipfile's or zlib's errors for a file that is not whole."""
    with zipfile.ZipFile(
        io.BytesIO(path.read_bytes())
    ) as saved:  # in one go: zipfile asks a file for a few bytes at a time
        logits, labels = _array(saved.read("logits.npy")), _array(saved.read("labels.npy"))
    fits = (
        logits.ndim == 2
        and logits.dtype.kind == "f"
        and labels.shape == logits.shape[:1]
        and labels.dtype.kind in "iu"
    )
    if not fits or not ((labels >= 0) & (labels < logits.shape[1])).all():
        raise ValueError("it needs logits (rows, classes) and labels (rows) that number classes")
    return Predictions(logits, labels)


def _array(file: bytes) -> NDArray[Any]:
    """An .npy file. np.load takes most of its time to parse the header, which is the same in thousands of files."""
    start = 10 + int.from_bytes(file[8:10], "little")
    shape, fortran, dtype = _header(file[8:start])
    if file[:8] != b"\x93NUMPY\x01\x00" or fortran:
        raise ValueError("no array as np.save writes it")
    return np.frombuffer(file, dtype, offset=start).reshape(shape)


@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_1_0(io.BytesIO(text))
