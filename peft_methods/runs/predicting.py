"""Predict the runs of a recipe: in the worker that checks it, or in one after the last run.

Nothing that a run computes depends on it: it is no part of the code that fingerprints cover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from peft_methods.estimation.case import Case
from peft_methods.estimation.connected import default_estimator
from peft_methods.estimation.estimator import Estimator
from peft_methods.estimation.gpu import Gpu
from peft_methods.estimation.question import DEVICE
from peft_methods.estimation.rows import with_own_rows
from peft_methods.methods.base import Method
from peft_methods.profiling.environment import package_versions
from peft_methods.recipes.schema import DataSpec, Recipe, Tuning
from peft_methods.runs.code_fingerprint import code_fingerprint
from peft_methods.runs.late_questions import LateQuestion
from peft_methods.runs.predicted import AFTER, Prediction
from peft_methods.tasks.registry import TASKS
from peft_methods.training.registry import choose_engine
from peft_methods.utils.cache import cached_value
from peft_methods.utils.errors import PeftMethodsError, first_line

KIND = "predictions"  # the cache's folder
MAX_KEPT = 512  # of it, one for each method of a recipe: less than a KiB each


def predictions(
    recipe: Recipe, methods: Sequence[Method], engines: Mapping[str, str]
) -> dict[str, Prediction]:
    """Return the prediction for each method that has one, by name. `engines` train the methods.

    There are times if the rates of the GPU of this process are known. A prediction is additional:
    whatever goes wrong with one, the run takes place without it.
    """
    found = {}
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    try:
        estimator, recipe = default_estimator(), with_own_rows(recipe)
    except Exception:  # without an estimate the runs take place as before
        return {}
    for method in methods:
        try:
            found[method.name] = prediction_of(
                recipe, method, engines[method.name], name, estimator
            )
        except Exception:
            continue
    return found


def prediction_of(
    recipe: Recipe, method: Method, engine: str, device_name: str, estimator: Estimator
) -> Prediction:
    """Predict a run. It has a time if the rates of the device are known.

    Raises whatever the estimate of its memory raises.
    """
    gpu = _gpu(device_name, estimator)
    case = Case(recipe, method, choose_engine(engine, DEVICE), estimator, gpu, 0)
    memory, time = case.run.memory, case.time
    known = Prediction(
        memory.allocated.expected, memory.allocated.low, memory.allocated.high, case.needed
    )
    if time is None:
        return known
    seconds = time.train_seconds
    return replace(
        known,
        train_seconds=seconds.expected,
        low_seconds=seconds.low,
        high_seconds=seconds.high,
        basis=time.basis,
    )


class LatePredictor:
    """Predicts runs that have ended, blind to what they measured. The data is read once a recipe.

    Predictions are kept in the cache, under everything that they depend on.
    """

    def __init__(self, estimator: Estimator | None = None) -> None:
        self._estimator = estimator or default_estimator()
        self._rows: dict[str, DataSpec] = {}

    def answer(self, question: LateQuestion) -> Prediction:
        """Return the prediction; one that knows nothing has the reason."""
        try:
            recipe = replace(question.recipe, data=self.rows_of(question.recipe))
            made = self._kept(replace(question, recipe=recipe))
        except Exception as error:  # a model, a method or a library may fail in any way
            made = Prediction(reason=first_line(error))
        return replace(made, made=AFTER)

    def rows_of(self, recipe: Recipe) -> DataSpec:
        """Return the data with the numbers and lengths of its rows, where these are here."""
        key = repr((recipe.task, recipe.model, recipe.data))
        if key not in self._rows:
            self._rows[key] = with_own_rows(recipe).data
        return self._rows[key]

    def _kept(self, question: LateQuestion) -> Prediction:
        """Return the kept prediction, or make and keep one.

        Nothing is kept without digests, nor of models that come with code, which has none.
        """

        def make() -> dict[str, Any]:
            asked = question.recipe, question.method, question.engine, question.device_name
            return asdict(prediction_of(*asked, self._estimator))

        if not question.digests or question.recipe.model.trust_remote_code:
            return Prediction(**make())
        return Prediction(**cached_value(KIND, self._key(question), make, MAX_KEPT))

    def _key(self, question: LateQuestion) -> dict[str, Any]:
        """Return everything that a prediction depends on, as JSON values.

        The rates of the device are those of a probe, if there was one.
        """
        recipe, method = question.recipe, question.method
        budget = replace(recipe.budget, seeds=(0,))
        own = replace(recipe, budget=budget, methods={}, title="", notes=(), tuning=Tuning())
        return {
            "recipe": repr(asdict(own)),
            "method": [method.name, repr(asdict(method)), question.engine],
            "device": [question.device_name, repr(_gpu(question.device_name, self._estimator))],
            "model": list(question.digests),
            "packages": package_versions(),
            "code": code_fingerprint(__name__, method, TASKS[recipe.task]),
        }


def _gpu(name: str, estimator: Estimator) -> Gpu | None:
    """Return the device of this name; None for one whose rates are unknown."""
    try:
        device = estimator.device(name)
    except PeftMethodsError:
        return None
    return Gpu(device.name, device.memory_bytes, device)
