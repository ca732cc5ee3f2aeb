"""Per-example predictions in NumPy's archive format (.npz).

Reading is optimised for speed: a report reads thousands of small files.
"""

from __future__ import annotations

import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.tasks.text_classification import Predictions


def encode_predictions(predictions: Predictions) -> bytes:
    """Encode the predictions as the bytes of an .npz file.

    Probabilities and predicted classes are included for other readers, though they follow from the
    logits.
    """
    file = io.BytesIO()
    np.savez_compressed(
        file,
        logits=predictions.logits,
        probabilities=predictions.probabilities,
        predicted=predictions.predicted,
        labels=predictions.labels,
    )
    return file.getvalue()


def read_predictions_file(path: Path) -> Predictions:
    """Read the logits and labels of an .npz file.

    Raises OSError, ValueError, KeyError, EOFError or errors of zipfile or zlib if it is damaged.
    """
    # Read the file at once: zipfile would read a few bytes at a time.
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as saved:
        logits, labels = _array(saved.read("logits.npy")), _array(saved.read("labels.npy"))
    fits = (
        logits.ndim == 2
        and logits.dtype.kind == "f"
        and labels.shape == logits.shape[:1]
        and labels.dtype.kind in "iu"
    )
    if not fits or not ((labels >= 0) & (labels < logits.shape[1])).all():
        raise ValueError(
            "it must hold logits of shape (rows, classes) and labels of shape (rows,) that are "
            "class indices"
        )
    return Predictions(logits, labels)


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
