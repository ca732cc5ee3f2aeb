"""The comparison of a run in a warm process with the same run in a fresh one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peft_methods.profiling.metrics import MEMORY_PARTS, MEMORY_PHASES
from peft_methods.runs.record import Record

# Metrics of the allocator: on a GPU they repeat to the byte.
PEAKS = (
    "peak_memory_bytes",
    *(f"{phase}_allocated_bytes" for phase in MEMORY_PHASES),
    *(f"{part}_bytes" for part in MEMORY_PARTS),
)
OUTSIDE_TRAINING = tuple(f"{phase}_allocated_bytes" for phase in MEMORY_PHASES if phase != "train")
SIZES = ("method_parameters", "head_parameters", "checkpoint_bytes", "saved_model_bytes")
LOSSES = ("first_loss", "train_loss", "validation_loss")
# torch's allocator hands out a cached block whole if less than this would be left over, and which
# blocks are cached depends on the runs before. On an H200 one evaluation of seven runs differed by
# 0.9 MiB. Peaks of training, which are shown, must repeat to the byte.
UNSPLIT_BYTES = 2**20
# The resident memory of the same run differs by 2 % from one fresh process to another.
HOST_TOLERANCE, HOST_BYTES = 0.06, 32 * 2**20
# Deterministic runs, and all on a CPU, repeat exactly. On a GPU others add in any order from the
# first backward pass on, and the weights drift apart: on an H200, validation losses by up to 27 %.
FIRST_LOSS_TOLERANCE = 0.01


def differences(warm: Record, fresh: Record, warm_file: Path, fresh_file: Path) -> list[str]:
    """Describe how the results of two records of one run differ. The files are predictions.

    Times are not compared. On a GPU, runs that are not deterministic differ by rounding, and more
    with every step. Of their losses only that of the first step is compared, within
    `FIRST_LOSS_TOLERANCE`. Other weights, rows, or draws of dropout would change it.
    """
    if fresh.status != "ok":
        return [f"it ended as {fresh.status} there: {fresh.message}"]
    on_gpu = warm.spec.device.startswith("cuda")
    is_exact = warm.spec.deterministic or not on_gpu
    return [
        *_differing("", _exact_parts(warm), _exact_parts(fresh)),
        *(_differing("", _scores(warm), _scores(fresh)) if is_exact else ()),
        *(_losses(warm, fresh) if is_exact else _first_loss(warm, fresh)),
        *_peaks(warm, fresh, on_gpu=on_gpu),
        *(_predictions(warm_file, fresh_file) if is_exact else ()),
    ]


def _exact_parts(record: Record) -> dict[str, Any]:
    """Return what must be the same on every device."""
    return {
        "fingerprint": record.fingerprint,
        "number of epochs": len(record.epochs),
        "evidence": record.evidence,
        **{name: record.metrics.get(name) for name in SIZES},
    }


def _scores(record: Record) -> dict[str, Any]:
    return {"best epoch": record.best_epoch, "quality": record.quality}


def _differing(where: str, one: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    for name, value in one.items():
        if value != other[name]:
            yield f"{name}{where} is {value}, and {other[name]} in a fresh process"


def _losses(warm: Record, fresh: Record) -> Iterator[str]:
    for number, (one, other) in enumerate(zip(warm.epochs, fresh.epochs, strict=False), 1):
        for name in LOSSES:
            if not _close(one.get(name), other.get(name), 0.0):
                yield _difference_of_loss(name, number, one, other)


def _first_loss(warm: Record, fresh: Record) -> Iterator[str]:
    for one, other in list(zip(warm.epochs, fresh.epochs, strict=False))[:1]:
        if not _close(one.get("first_loss"), other.get("first_loss"), FIRST_LOSS_TOLERANCE):
            yield _difference_of_loss("first_loss", 1, one, other)


def _difference_of_loss(
    name: str, number: int, one: Mapping[str, Any], other: Mapping[str, Any]
) -> str:
    values = f"{one.get(name)!r}, and {other.get(name)!r} in a fresh process"
    return f"{name} of epoch {number} is {values}"


def _close(one: float | None, other: float | None, tolerance: float) -> bool:
    """Whether two losses are equal or close. Two missing ones are, and two that are NaN."""
    if one is None or other is None:
        return one is other
    if math.isnan(one) and math.isnan(other):
        return True
    return one == other or math.isclose(one, other, rel_tol=tolerance)


def _peaks(warm: Record, fresh: Record, *, on_gpu: bool) -> Iterator[str]:
    for name in PEAKS:
        a, b = warm.metrics.get(name), fresh.metrics.get(name)
        if a == b:
            continue
        if a is not None and b is not None and abs(a - b) <= _allowed(name, max(a, b), on_gpu):
            continue
        yield f"{name} is {_count(a)}, and {_count(b)} in a fresh process"


def _allowed(name: str, value: float, on_gpu: bool) -> float:
    """Return by how many bytes a peak may differ from that of a fresh process."""
    if not on_gpu:
        return max(HOST_BYTES, HOST_TOLERANCE * value)
    return UNSPLIT_BYTES if name in OUTSIDE_TRAINING else 0


def _count(value: float | None) -> str:
    return "missing" if value is None else f"{value:,.0f}"


def _predictions(one: Path, other: Path) -> Iterator[str]:
    if one.is_file() != other.is_file():
        yield "only one of the two has predictions"
    if not (one.is_file() and other.is_file()):
        return
    with np.load(one, allow_pickle=False) as a, np.load(other, allow_pickle=False) as b:
        if set(a.files) != set(b.files):
            yield f"the predictions have {a.files}, and {b.files} in a fresh process"
            return
        for name in a.files:
            if a[name].tobytes() != b[name].tobytes():
                yield f"the predictions differ ({name})"
