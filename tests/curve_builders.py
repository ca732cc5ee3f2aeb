"""Learning curves whose accuracies are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from builders import TASK, make_predictions, make_record
from peft_methods.api import PrintableComparison
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.curve import curve_recipes
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.record import Record
from peft_methods.runs.spec import run_specs

RISING = {
    "full": ([0.70, 0.71, 0.69], [0.80, 0.81, 0.79], [0.86, 0.865, 0.855]),
    "lora": ([0.60, 0.61, 0.59], [0.79, 0.80, 0.80], [0.87, 0.865, 0.86]),
    "head_only": ([0.55, 0.56, 0.56], [0.57, 0.58, 0.57], [0.58, 0.585, 0.58]),
}
SIZES = (100, 300, 900)


def make_curve(
    accuracies: Mapping[str, Sequence[Sequence[float]]] = RISING,
    sizes: Sequence[int] = SIZES,
    recipe: str = "embedded",
    **changes: Any,
) -> PrintableComparison:
    """Return the records of a learning curve: accuracies by method, size and seed."""
    records: list[Record] = []
    kept = {}
    for place, (size, of_size) in enumerate(
        zip(sizes, curve_recipes(load_recipe(recipe), sizes), strict=True)
    ):
        for number, (method, by_size) in enumerate(accuracies.items()):
            (chosen,) = chosen_methods(of_size, [method])
            spec = run_specs(of_size, chosen, "cpu")[0]
            for seed, accuracy in enumerate(by_size[place]):
                made = make_predictions(accuracy, 100 * place + 10 * number + seed)
                scores = TASK.evaluate(made, ("no", "yes")).scores
                record = make_record(
                    method,
                    seed,
                    spec=replace(spec, seed=seed),
                    fingerprint=f"{method}-{size}-{seed}",
                    metrics={**make_record().metrics, **scores},
                    **changes,
                )
                records.append(record)
                kept[record.fingerprint] = made
    return PrintableComparison(tuple(records), predictions=kept)
