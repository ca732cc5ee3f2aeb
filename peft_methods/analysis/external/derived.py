"""Times of one epoch and of several GPUs, turned into training times where that is possible."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from peft_methods.analysis.external.columns import COLUMNS
from peft_methods.analysis.external.figures import Figures, figures_of
from peft_methods.analysis.external.headers import Meaning

TIME = next(column for column in COLUMNS if column.field == "train_seconds")
GPUS = next(column for column in COLUMNS if column.field == "gpus")
DEVICE = next(column for column in COLUMNS if column.field == "device")
COUNT = re.compile(
    r"^\s*(\d{1,4})\s*(?:x|×|\*)|(?:x|×|\*)\s*(\d{1,4})\s*$|^(\d{1,4})\s+\w*\s*gpus?\b"
)
NODE = 8  # GPUs over which a rule allows weights to be parted


def derive(by_field: dict[str, Figures]) -> list[str]:
    """Add training times and numbers of devices that other columns give; return remarks."""
    if "gpus" not in by_field and "device" in by_field and _are_numbers(by_field["device"].values):
        numbers = by_field.pop("device")  # `#GPU`
        by_field["gpus"] = figures_of(numbers.header, Meaning(GPUS, None, 0), numbers.values)
    gpus = [_devices(by_field, row) for row in range(_rows(by_field))]
    remarks = _times(
        by_field,
        "epoch_seconds",
        "is the time of one epoch",
        "number of epochs",
        [_value(by_field, "epochs", row) for row in range(len(gpus))],
    )
    remarks += _times(
        by_field,
        "gpu_seconds",
        "is the time of all GPUs together",
        "number of GPUs",
        [1 / count if count else None for count in gpus],
    )
    if "gpus" in by_field and "device" not in by_field:
        names = [f"{count:g} GPU{'s' * (count != 1)}" if count else "" for count in gpus]
        by_field["device"] = replace(by_field["gpus"], column=DEVICE, values=names, remarks=[])
    elif "gpus" in by_field:
        device = by_field["device"]
        device.values = [
            f"{count:g} x {text}" if text and count and count > 1 and not _count_in(text) else text
            for text, count in zip(device.values, gpus, strict=True)
        ]
    if any(count and count > NODE for count in gpus) and "peak_memory" in by_field:
        memory = by_field["peak_memory"]
        memory.values = [
            None if count and count > NODE else value
            for value, count in zip(memory.values, gpus, strict=True)
        ]
        remarks.append(
            f"column {memory.header!r}: not read where more than {NODE} GPUs were used, since each "
            "may hold any part of the weights"
        )
    return remarks


def _are_numbers(texts: Sequence[str]) -> bool:
    known = [text for text in texts if text]
    return bool(known) and all(re.fullmatch(r"\d{1,4}", text.strip()) for text in known)


def _rows(by_field: Mapping[str, Figures]) -> int:
    return next((len(figures.values) for figures in by_field.values()), 0)


def _value(by_field: Mapping[str, Figures], name: str, row: int) -> float | None:
    found: Any = by_field[name].values[row] if name in by_field else None
    return None if found is None else float(found.value)


def _devices(by_field: Mapping[str, Figures], row: int) -> float | None:
    """Return the number of devices, of its own column or of a device's name: `4x A100`."""
    if count := _value(by_field, "gpus", row):
        return count
    return _count_in(by_field["device"].values[row]) if "device" in by_field else None


def _count_in(text: str) -> float | None:
    found = COUNT.search(text.casefold())
    return float(next(one for one in found.groups() if one)) if found else None


def _times(
    by_field: dict[str, Figures],
    field: str,
    what: str,
    wanted: str,
    factors: list[float | None],
) -> list[str]:
    """Multiply a column's times by the factors of the rows, unless the whole time is known."""
    figures = by_field.get(field)
    if figures is None or figures.is_empty:
        return []
    if "train_seconds" in by_field:
        return [f"column {figures.header!r} {what}: not read beside the training time"]
    values = [
        None if one is None or by is None else one.scaled(by)
        for one, by in zip(figures.values, factors, strict=True)
    ]
    if not any(values):
        return [f"column {figures.header!r} {what}, and the {wanted} is not given: not read"]
    by_field["train_seconds"] = replace(figures, column=TIME, values=values, remarks=[])
    lost = sum(bool(one) for one in figures.values) - sum(bool(one) for one in values)
    rows = "a row" if lost == 1 else f"{lost} rows"
    said = f"column {figures.header!r} {what}, and the {wanted} is not given for {rows}: not read"
    return [f"{said} there"] if lost else []
