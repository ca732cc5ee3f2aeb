"""Seeds and hyperparameters: their values, and how they were tuned."""

from __future__ import annotations

from typing import Any

from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.report.formatting import MISSING
from peft_methods.report.paper.english import counted, joined, listed, number, was
from peft_methods.report.paper.references import cited
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped, table

MOST = 8


def rates(study: Study) -> str:
    """Return a paragraph on seeds, and on whether and how hyperparameters were tuned."""
    seeds = (
        f"{counted(len(study.seeds), 'seed')} ({listed([str(seed) for seed in study.seeds], 10)})"
    )
    lead = (
        f"Each method is trained with {seeds}. A seed determines the initial values of new weights "
        "and the order of the rows."
    )
    searches = {record.method_name: record.tuning for record in study.finished if record.tuning}
    where = f"@t-rates-{study.label}"
    if not searches:
        return joined(
            lead,
            f"{where} lists the hyperparameters; they are those of the recipe, and none was tuned.",
        )
    kept = [row.method for row in study.measured if row.method not in searches]
    return joined(
        lead,
        _search(study, searches),
        f"{study.titles(kept, MOST)} kept the recipe's settings." if kept else "",
        f"{where} lists the chosen values.",
    )


def _search(study: Study, searches: dict[str, dict[str, Any]]) -> str:
    """Describe the searches, as far as they were alike."""
    effort = {(len(search["trials"]), search["epochs"]) for search in searches.values()}
    values = {len(search["grid"]["learning_rate"]) for search in searches.values()}
    trials, epochs = min(effort)
    what = (
        f"{counted(trials, 'trial')} of {counted(epochs, 'epoch')}"
        if len(effort) == 1
        else "several trials each"
    )
    score = next(iter(searches.values()))["select_by"].replace("_", " ")
    return (
        f"Before that, {study.titles(searches, MOST)} {was(len(searches))} tuned with {what}. A "
        f"Parzen estimator{cited('bergstra2011tpe', 'akiba2019optuna')} chose them from a grid of "
        f"{number(max(values))} learning rates around the recipe's value, and the best one was "
        f"selected by validation {score}{_confirmation(searches)}; test rows were not used."
    )


def _confirmation(searches: dict[str, dict[str, Any]]) -> str:
    """Say that the best trials were confirmed; empty for records of earlier versions."""
    if not all("confirmation" in search for search in searches.values()):
        return ""
    return (
        "; it replaced the recipe's setting only if it gained beyond chance when both were trained "
        "in full with new seeds"
    )


def hyperparameters(study: Study) -> str:
    """Return the table of every method's hyperparameters."""
    by_name = {record.method_name: record.spec.method_settings() for record in study.records}
    methods = {row.method: by_name[row.method] for row in study.rows}
    lines = [
        [study.title(name), f"{method['learning_rate']:.3g}", _settings(method)]
        for name, method in methods.items()
    ]
    return table(
        f"t-rates-{study.label}",
        f"Hyperparameters{study.of}",
        ("Method", "Rate", "Other settings"),
        lines,
        wide=True,
        columns="(auto, auto, 1fr)",
        align="(left, right, left)",
    )


def _settings(method: dict[str, Any]) -> str:
    shown = {
        key: value for key, value in method.items() if key != "learning_rate" and value is not None
    }
    return (
        ", ".join(
            f"{escaped(key.replace('_', ' '))} {_value(value)}" for key, value in shown.items()
        )
        or MISSING
    )


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " + ".join(_value(one) for one in value)
    return (
        f"{value:.3g}"
        if isinstance(value, float)
        else escaped(str(value).removeprefix(PREFIX).replace("_", " "))
    )
