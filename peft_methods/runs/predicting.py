"""Predict the runs of a recipe, in the worker that checks it.

Nothing that a run computes depends on it: it is no part of the code that fingerprints cover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from peft_methods.estimation.case import Case
from peft_methods.estimation.connected import default_estimator
from peft_methods.estimation.estimator import Estimator
from peft_methods.estimation.gpu import Gpu
from peft_methods.estimation.question import DEVICE
from peft_methods.estimation.rows import with_own_rows
from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.predicted import Prediction
from peft_methods.training.registry import choose_engine
from peft_methods.utils.errors import PeftMethodsError


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


def _gpu(name: str, estimator: Estimator) -> Gpu | None:
    """Return the device of this name; None for one whose rates are unknown."""
    try:
        device = estimator.device(name)
    except PeftMethodsError:
        return None
    return Gpu(device.name, device.memory_bytes, device)
