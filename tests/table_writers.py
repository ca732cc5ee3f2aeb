"""Writes tables as people publish them: names of columns, units, formats and orientations."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from table_builders import Table, TableRow

Cells = list[list[str]]
Way = tuple[str, Callable[[Any], str]]  # what follows the header, and how values are written
# The columns of a row, and the names they are published under, the plainest first.
HEADERS: Mapping[str, tuple[str, ...]] = {
    "name": ("method", "Method", "Approach", "Fine-tuning method", "Technique"),
    "model": ("model", "Model", "Base model", "Backbone"),
    "trainable": (
        *("trainable_parameters", "Trainable Params", "# Trainable Parameters"),
        *("# of Trainable Params.", "num_trainable_params", "Params"),
    ),
    "total": ("total_parameters", "All Params", "Total Parameters", "num_total_params"),
    "share": ("trainable_percent", "Trainable %", "Trainable Params (%)", "% of total"),
    "accuracy": ("accuracy", "Accuracy", "Test Acc.", "test_accuracy", "Acc"),
    "validation_accuracy": ("validation_accuracy", "Val Accuracy", "Validation Acc."),
    "validation_accuracies": ("validation_accuracies",),
    "validation_losses": ("validation_losses",),
    "train_seconds": ("train_time", "Training Time", "Train time", "Training runtime"),
    "samples_per_second": ("samples_per_second", "Samples/s", "train_samples_per_second"),
    "energy_joules": ("energy_joules",),
    "peak_memory": ("peak_memory", "GPU Memory", "Peak GPU Memory", "VRAM"),
    "max_memory": ("max_memory", "Max Memory"),
    "epochs": ("epochs", "Epochs", "num_train_epochs"),
    "steps_per_epoch": ("steps_per_epoch",),
    "batch_size": ("batch_size", "Batch size"),
    "max_length": ("max_length", "Max seq length"),
    "learning_rate": ("learning_rate", "LR", "Learning rate"),
    "train_rows": ("train_rows", "Train samples"),
    "test_rows": ("test_rows", "Test samples"),
    "majority": ("majority", "Majority class"),
    "precision": ("precision", "dtype"),
    "device": ("device", "GPU"),
    "seed": ("seed",),
}
OFTEN = ("trainable", "accuracy", "train_seconds", "peak_memory", "model")
FORMATS = ("csv", "tsv", "semicolon", "json", "markdown", "latex", "html", "columns", "transposed")


def write_table(
    table: Table,
    rng: random.Random,
    folder: Path,
    *,
    needed: Sequence[str] = (),
) -> Path:
    """Write a table in one of the usual forms.

    `needed` columns are always there, and counts are exact where some are needed.
    """
    present = [
        name for name in HEADERS if any(getattr(row, name) not in {None, ()} for row in table.rows)
    ]
    columns = [
        name
        for name in present
        if name == "name"
        or name in needed
        or (name in {"model", "seed"} and _differs(table.rows, name))
        or rng.random() < (0.8 if name in OFTEN else 0.15)
    ]
    if not {"accuracy", "trainable", "train_seconds"} & set(columns):
        columns.append("accuracy")
    cells = _cells(table.rows, columns, rng, exact=bool(needed))
    form = rng.choice(FORMATS)
    if form == "transposed" and {"model", "device", "precision"} & set(columns):
        form = "markdown"
    path = folder / f"table.{ENDINGS[form]}"
    path.write_text(WRITERS[form](cells), encoding="utf-8")
    return path


def _differs(rows: Sequence[TableRow], name: str) -> bool:
    return len({getattr(row, name) for row in rows}) > 1


def _cells(
    rows: Sequence[TableRow],
    columns: Sequence[str],
    rng: random.Random,
    *,
    exact: bool,
) -> Cells:
    """Return the header and the lines; one way of writing numbers for each column."""
    headers, texts = [], []
    for name in columns:
        header = rng.choice(HEADERS[name])
        ways = WAYS.get(name, AS_IT_IS)
        many = EXACT_WAYS.get(name, len(ways)) if exact else len(ways)
        unit, write = rng.choice(ways[:many])
        headers.append(header + unit)
        texts.append([_text(getattr(row, name), write) for row in rows])
    return [headers, *(list(line) for line in zip(*texts, strict=True))]


def _text(value: Any, write: Callable[[Any], str]) -> str:
    if value is None or value == ():
        return ""
    return ";".join(map(write, value)) if isinstance(value, tuple) else write(value)


def _with_commas(value: int) -> str:
    return f"{value:,}"


def _short(value: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:.2f}{unit}"
    return str(value)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def _hours(seconds: float) -> str:
    return f"{round(seconds / 60) // 60}h {round(seconds / 60) % 60:02d}m"


AS_IT_IS: tuple[Way, ...] = (("", str),)
COUNTS: tuple[Way, ...] = (
    ("", _with_commas),
    ("", str),
    ("", _short),
    (" (M)", lambda value: f"{value / 1e6:.{0 if value >= 1e8 else 2}f}"),
    (" (K)", lambda value: f"{value / 1e3:.0f}"),
)
SECONDS: tuple[Way, ...] = (
    (" (s)", lambda value: f"{value:.2f}"),
    (" (minutes)", lambda value: f"{value / 60:.4f}"),
    ("", lambda value: f"{value:.1f}s"),
    ("", lambda value: f"{value / 60:.3f} min"),
    ("", lambda value: f"{value / 3600:.4f} h"),
    ("", lambda value: _clock(value) if value > 600 else f"{value:.1f} s"),
    ("", lambda value: _hours(value) if value > 36_000 else f"{value / 60:.2f} min"),
    (" (h)", lambda value: f"{value / 3600:.1f}"),
    (" (min)", lambda value: f"{value / 60:.0f}"),
)
MEMORY: tuple[Way, ...] = (
    (" (MB)", lambda value: f"{value / 1e6:.2f}"),
    (" (GB)", lambda value: f"{value / 1e9:.3f}"),
    ("", lambda value: f"{value / 2**20:,.1f} MiB"),
    ("", lambda value: f"{value / 2**30:.3f} GiB"),
    ("", lambda value: f"{value / 1e9:.3f} GB"),
    (" (MB)", lambda value: f"{value / 2**20:,.0f}"),
    (" (GB)", lambda value: f"{value / 1e9:.1f}"),
    (" (GiB)", lambda value: f"{value / 2**30:.0f}"),
)
# The ways of writing that keep a planted flaw visible come first.
EXACT_WAYS = {"trainable": 2, "total": 2, "peak_memory": 6, "max_memory": 6, "train_seconds": 7}
SHARES: tuple[Way, ...] = (
    ("", lambda value: f"{value:.4f}"),
    ("", lambda value: f"{100 * value:.2f}%"),
    (" (%)", lambda value: f"{100 * value:.2f}"),
    ("", lambda value: f"**{value:.4f}**"),
    ("", lambda value: f"{100 * value:.2f} ± 0.31"),
    ("", lambda value: f"{value:.4f}†"),
)

PERCENT: tuple[Way, ...] = (
    ("", lambda value: f"{100 * value:.2f}%"),
    ("", lambda value: f"{100 * value:.4f}%"),
)
SERIES: tuple[Way, ...] = (("", lambda value: f"{value:.5f}"),)
TWO_DIGITS: tuple[Way, ...] = (("", lambda value: f"{value:.2f}"),)
WAYS: Mapping[str, tuple[Way, ...]] = {
    **dict.fromkeys(("trainable", "total"), COUNTS),
    **dict.fromkeys(("peak_memory", "max_memory"), MEMORY),
    **dict.fromkeys(("accuracy", "validation_accuracy", "majority"), SHARES),
    **dict.fromkeys(("validation_accuracies", "validation_losses"), SERIES),
    **dict.fromkeys(("samples_per_second", "energy_joules"), TWO_DIGITS),
    "train_seconds": SECONDS,
    "share": PERCENT,
    "learning_rate": (("", lambda value: f"{value:.0e}"),),
}


def _csv(separator: str) -> Callable[[Cells], str]:
    def written(cells: Cells) -> str:
        out = io.StringIO()
        csv.writer(out, delimiter=separator, lineterminator="\n").writerows(cells)
        return out.getvalue()

    return written


def _semicolons(cells: Cells) -> str:
    """Semicolons with decimal commas, unless a cell has commas of another meaning or a series."""
    has_others = any("," in cell or ";" in cell for line in cells for cell in line)
    if has_others:
        return _csv("\t")(cells)
    return _csv(";")([cells[0], *([_decimal_comma(cell) for cell in line] for line in cells[1:])])


def _decimal_comma(cell: str) -> str:
    number = cell.rstrip("%").replace(".", "", 1)
    return cell.replace(".", ",") if number.isdigit() else cell


def _json(cells: Cells) -> str:
    return json.dumps([dict(zip(cells[0], line, strict=True)) for line in cells[1:]], indent=1)


def _columns(cells: Cells) -> str:
    return json.dumps(dict(zip(cells[0], zip(*cells[1:], strict=True), strict=True)))


def _markdown(cells: Cells) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join(["# Results", "", lines[0], "|---" * len(cells[0]) + "|", *lines[1:], ""])


def _latex(cells: Cells) -> str:
    lines = [" & ".join(map(_escaped, line)) + r" \\" for line in cells]
    start = rf"\begin{{tabular}}{{l{'c' * (len(cells[0]) - 1)}}}"
    middle = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([start, *middle, r"\end{tabular}", ""])


def _escaped(cell: str) -> str:
    for sign in "%_#&":
        cell = cell.replace(sign, f"\\{sign}")
    return cell.replace("±", r"$\pm$")


def _html(cells: Cells) -> str:
    tags = ["th"] + ["td"] * (len(cells) - 1)
    lines = [
        "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in line) + "</tr>"
        for tag, line in zip(tags, cells, strict=True)
    ]
    return "<table>\n" + "\n".join(lines) + "\n</table>\n"


def _transposed(cells: Cells) -> str:
    turned = [list(line) for line in zip(*cells, strict=True)]
    return _markdown([["Metric", *turned[0][1:]], *turned[1:]])


WRITERS: Mapping[str, Callable[[Cells], str]] = {
    "csv": _csv(","),
    "tsv": _csv("\t"),
    "semicolon": _semicolons,
    "json": _json,
    "markdown": _markdown,
    "latex": _latex,
    "html": _html,
    "columns": _columns,
    "transposed": _transposed,
}
ENDINGS = {
    **{"csv": "csv", "tsv": "tsv", "semicolon": "csv", "json": "json", "markdown": "md"},
    **{"latex": "tex", "html": "html", "columns": "json", "transposed": "md"},
}
