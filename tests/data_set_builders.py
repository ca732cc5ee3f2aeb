"""Comparisons of several recipes whose accuracies are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from builders import make_comparison
from peft_methods.api import PrintableComparison

Accuracies = Mapping[str, list[float]]  # of each seed, by method
THREE: Mapping[str, Accuracies] = {
    "films": {"full": [0.90, 0.91, 0.90], "lora": [0.904, 0.906, 0.91], "ia3": [0.7, 0.72, 0.71]},
    "goods": {"full": [0.80, 0.82, 0.81], "lora": [0.81, 0.79, 0.79], "ia3": [0.6, 0.61, 0.63]},
    "verse": {"full": [0.95, 0.95, 0.94], "lora": [0.97, 0.96, 0.96], "ia3": [0.9, 0.92, 0.91]},
}


def make_recipes(accuracies: Mapping[str, Accuracies] = THREE, **data: Any) -> PrintableComparison:
    """Return one recipe per entry. `data` changes the facts about the data in every record."""
    records, kept = [], {}
    for name, methods in accuracies.items():
        one = make_comparison({method: (values, {}) for method, values in methods.items()})
        for record in one.records:
            fingerprint = f"{name}-{record.fingerprint}"
            recipe = replace(record.spec.recipe, name=name)
            facts = {"fingerprint": name, "trivial_baseline": {"accuracy": 0.5}, **data}
            records.append(
                replace(
                    record,
                    fingerprint=fingerprint,
                    spec=replace(record.spec, recipe=recipe),
                    data={**record.data, **facts},
                )
            )
            kept[fingerprint] = one.predictions[record.fingerprint]
    return PrintableComparison(tuple(records), predictions=kept)
