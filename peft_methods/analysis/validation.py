"""Estimates made now for runs that were measured before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from peft_methods.analysis.predicted import EstimateError, errors_of
from peft_methods.estimation.estimator import Estimator
from peft_methods.estimation.question import config_source
from peft_methods.estimation.rows import has_known_lengths
from peft_methods.recipes.schema import ModelSpec, Recipe
from peft_methods.runs.predicted import Prediction
from peft_methods.runs.predicting import prediction_of
from peft_methods.runs.record import Record
from peft_methods.utils.errors import first_line


@dataclass
class Validation:
    """Errors of estimates, and the runs that could not be estimated, with the reason.

    `stored` counts the runs that have only the estimate of their time, and `stored_times` those
    whose training time alone is compared with the estimate that their record keeps.
    """

    errors: list[EstimateError] = field(default_factory=list)
    runs: int = 0
    stored: int = 0
    stored_times: int = 0
    failed: dict[str, list[str]] = field(default_factory=dict)


def validate(records: Iterable[Record], estimator: Estimator) -> Validation:
    """Estimate finished runs on GPUs, and compare with what was measured.

    Runs that differ by their seed alone are estimated once. The data is not read again: times are
    compared where the recipe has the lengths of its rows, or else with the estimate that a record
    keeps. That is also taken where a run cannot be estimated now.
    """
    found, known = Validation(), dict[str, Prediction | str]()
    for record in records:
        if record.status != "ok" or record.role != "main" or record.spec.device == "cpu":
            continue
        found.runs += 1
        key = repr((_settings(record), record.environment.get("device_name")))
        if key not in known:
            known[key] = _estimated(record, estimator)
        now = known[key]
        if not isinstance(now, str):
            times = _kept_times(record) if now.train_seconds is None else []
            found.errors += errors_of(record, now) + times
            found.stored_times += len(times)
        elif kept := errors_of(record):
            found.errors += kept
            found.stored += 1
        else:
            found.failed.setdefault(now, []).append(record.spec.label)
    return found


def _kept_times(record: Record) -> list[EstimateError]:
    """Return the error of the estimated time that a record keeps, if it has one."""
    return [one for one in errors_of(record) if one.metric == "train_seconds"]


def _settings(record: Record) -> object:
    spec = record.spec
    budget = replace(spec.recipe.budget, seeds=(0,))
    return replace(spec.recipe, budget=budget), spec.method, spec.engine


def _estimated(record: Record, estimator: Estimator) -> Prediction | str:
    """Return the estimate of a run, or why there is none."""
    spec = record.spec
    try:
        recipe = _from_config(spec.recipe)
        name = str(record.environment.get("device_name", ""))
        found = prediction_of(recipe, spec.method, spec.engine, name, estimator)
    except Exception as error:  # a model, a method or a library may fail in any way
        return first_line(error)
    if has_known_lengths(recipe):
        return found
    return replace(found, train_seconds=None, low_seconds=None, high_seconds=None)


def _from_config(recipe: Recipe) -> Recipe:
    """Return the recipe with the source of the model's config: no weights are read."""
    model = ModelSpec(config_source(recipe.model.source), weights=recipe.model.weights)
    return replace(recipe, model=model)
