"""The last predictions of a run, their quality, and further evaluations.

This is the one use of the test rows. A trial predicts the validation rows instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from peft_methods.data.facts import TokenData
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.models.loading import LoadedModel
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.base import Predictions, Quality
from peft_methods.tasks.collate import Collator
from peft_methods.tasks.registry import TASKS
from peft_methods.training.evaluation import predict
from peft_methods.training.precision import autocast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def predict_last(
    run: RunSpec, model: nn.Module, tokens: TokenData, collate: Collator
) -> Predictions | None:
    """Return predictions for the test rows, or, of a trial, for the validation rows.

    Where the task tunes something on validation data, the validation rows are predicted once more,
    with the weights of the best epoch. With random weights the pass is only timed: it predicts
    nothing.
    """
    task, budget = TASKS[run.recipe.task], run.recipe.budget
    rows = tokens.validation if run.role == "trial" else tokens.test
    if not len(rows):
        return None
    predicted = partial(predict, task, model, collate=collate, precision=budget.precision)
    size = budget.evaluation_batch_size
    predictions = predicted(rows, batch_size=size)
    if not run.recipe.has_quality:
        return None
    if task.tunes_on_validation and rows is tokens.test:
        predictions = task.tuned(predictions, predicted(tokens.validation, batch_size=size))
    return predictions


def quality_of(
    run: RunSpec, predictions: Predictions | None, label_names: tuple[str, ...]
) -> Quality | None:
    """Evaluate test predictions; None without any, and where an output is not finite."""
    if run.role == "trial" or predictions is None or not predictions.is_finite:
        return None
    return TASKS[run.recipe.task].evaluate(predictions, label_names)


def generate_last(
    run: RunSpec,
    model: nn.Module,
    base: LoadedModel,
    predictions: Predictions | None,
    table: LabelledTexts,
) -> Predictions | None:
    """Add generated texts to the predictions for the test rows, for tasks that generate.

    Trials and prerequisite runs have none.
    """
    if run.role != "main" or predictions is None or not len(table):
        return predictions
    task = TASKS[run.recipe.task]
    with _in_use(run, model):
        return task.generate(predictions, model, base.tokenizer, table, run.recipe)


def further_scores(
    run: RunSpec,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    before: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return the metrics of the task's further evaluations, for runs that are tested.

    `before` has those of the untrained model, where it was measured.
    """
    if run.role != "main" or not run.recipe.has_quality:
        return {}
    found: dict[str, float] = {}
    for evaluation in TASKS[run.recipe.task].extra_evaluations(run.recipe):
        with _in_use(run, model):
            found.update(evaluation.measure(model, tokenizer))
        if evaluation.compare is not None and before is not None:
            found.update(evaluation.compare(before, found))
    return found


@contextmanager
def _in_use(run: RunSpec, model: nn.Module) -> Iterator[None]:
    """Context manager: the model in evaluation mode, in the precision of the recipe."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        with autocast(device, run.recipe.budget.precision):
            yield
    finally:
        model.train(was_training)
