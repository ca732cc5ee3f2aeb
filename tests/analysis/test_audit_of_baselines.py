"""The rules of audited tables find nothing in the project's own stored figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from audit_faults import ROW_FAULTS

from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.external.audit import check_table

BASELINES = Path(__file__).parents[2] / "benchmarks" / "baselines"
FILES = sorted(BASELINES.rglob("*.json"))


def rows_of(path: Path) -> list[ResultRow]:
    """Return each seed of each method of a baseline, as a table would give it."""
    benchmarks = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    return [
        row_of_seed(one["extra_info"], place)
        for one in benchmarks
        for place in range(len(one["extra_info"].get("seeds", ())))
    ]


def row_of_seed(info: dict[str, Any], place: int) -> ResultRow:
    def figure(name: str) -> float | None:
        values = info["metrics"].get(name) or ()
        return values[place] if place < len(values) else None

    def count(name: str) -> RoundedCount | None:
        value = figure(name)
        return None if value is None else RoundedCount.exactly(value)

    budget = info["spec"]["recipe"]["budget"]
    rows = sum(info["data"].get("class_counts", {}).get("train", ())) or None
    batch = budget["batch_size"] * budget["gradient_accumulation"]
    return ResultRow(
        info["method"],
        info["method"],
        ranked=True,
        seed=info["seeds"][place],
        accuracy=figure("accuracy"),
        validation_accuracy=figure("validation_accuracy"),
        trainable=count("trainable_parameters"),
        total=count("total_parameters"),
        trainable_share=count("trainable_share"),
        train_seconds=figure("train_seconds"),
        energy_joules=figure("energy_joules"),
        peak_memory=count("peak_memory_bytes"),
        train_rows=rows,
        epochs=budget["epochs"],
        batch_size=batch,
        steps_per_epoch=math.ceil(rows / batch) if rows else None,
        device=info["environment"].get("device_name"),
        precision=budget["precision"],
    )


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_rules_of_tables_find_nothing_in_own_figures(path: Path) -> None:
    found = [one for one in check_table(rows_of(path)) if one.rule in ROW_FAULTS]
    assert list(map(str, found)) == []
