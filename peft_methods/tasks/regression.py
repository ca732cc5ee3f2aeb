"""Regression: one or several numbers for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.data.labelled_texts import Label, LabelledTexts
from peft_methods.data.labelling import ParsedData
from peft_methods.data.raw import RawData
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.base import Batch, LossSum, Quality, Scores, Task
from peft_methods.tasks.column_kinds import are_decimal_numbers, column_among, values_of
from peft_methods.tasks.label_columns import find_label_columns
from peft_methods.tasks.metrics import NUMBER, Metric
from peft_methods.tasks.number_labels import check_scores, parse_scores, score_strata
from peft_methods.tasks.number_predictions import NumberPredictions
from peft_methods.tasks.number_scores import example_scores
from peft_methods.tasks.number_views import kept_points, number_views
from peft_methods.tasks.text_classification import TextClassification
from peft_methods.tasks.views import View

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from peft_methods.data.token_rows import TokenRows
    from peft_methods.tasks.collate import Collator

LABEL_COLUMNS = (
    "score",
    "scores",
    "label",
    "labels",
    "rating",
    "similarity",
    "similarity_score",
    "relatedness_score",
    "target",
    "value",
    "stars",
)


class Regression(Task):
    """One or several scores per text. The loss is the squared error, the mean over its scores.

    Scores are trained and predicted in their own unit, as transformers does for the problem type
    `regression`, so that a saved model gives them without further ado. With several scores, each
    metric is the mean over the scores.
    """

    name = "regression"
    title = "Regression"
    peft_type = "SEQ_CLS"
    shown_metrics = 4
    loss_unit = "squared error"
    trivial = "always predicting the mean of train"
    head = replace(TextClassification.head, problem_type="regression")
    metrics = (
        Metric("spearman", "Spearman", NUMBER, True, bounds=(-1.0, 1.0), label="Spearman"),
        Metric("pearson", "Pearson", NUMBER, True, bounds=(-1.0, 1.0), label="Pearson"),
        Metric("mae", "Mean absolute error", NUMBER, False),
        Metric("r2", "R²", NUMBER, True, bounds=(None, 1.0), label="R²"),
    )

    def recognises(self, raw: RawData, spec: DataSpec) -> str:
        """Return whether the label column holds decimal numbers."""
        column = column_among(raw.first, spec.label, LABEL_COLUMNS)
        is_score = are_decimal_numbers(values_of(raw.first, column))
        return f"the values of {column!r} are decimal numbers" if is_score else ""

    def parse(self, raw: RawData, spec: DataSpec) -> ParsedData:
        """Return texts and scores. Raises `DataError` that names the cause.

        One score is called as its column, and so are those of several columns. Those of a column
        of lists are called "score 1", "score 2", …
        """
        columns = find_label_columns(raw, spec, LABEL_COLUMNS)
        labels, names = parse_scores(raw, columns.labels, spec)
        return ParsedData(columns.tables(raw, labels, spec), names)

    def random_label_names(self, spec: DataSpec) -> tuple[str, ...]:
        """Return the name of one score."""
        return ("score",)

    def random_labels(self, rng: np.random.Generator, rows: int, names: int) -> list[float]:
        """Draw scores from the standard normal distribution."""
        drawn: list[float] = rng.standard_normal(rows).tolist()
        return drawn

    def strata(self, labels: Sequence[Label]) -> Sequence[int]:
        """Return the tenth of the first score that each row is in."""
        return score_strata(labels)

    def check_splits(
        self, splits: dict[str, LabelledTexts], label_names: tuple[str, ...], spec: DataSpec
    ) -> None:
        """Raise `DataError` if all rows of a split have the same score."""
        check_scores(splits, label_names, spec)

    def example_columns(self, rows: int) -> Mapping[str, list[Any]]:
        """Return short texts whose score is half the number of times that a word occurs."""
        texts = [" ".join(["plot", *["good"] * (i % 5), str(i)]) for i in range(rows)]
        return {"text": texts, "score": [(i % 5) / 2 for i in range(rows)]}

    def collator(self, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> Collator:
        """Return a collator whose labels are numbers."""
        from peft_methods.tasks.number_outputs import NumberCollator

        return NumberCollator(tokenizer, length)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Sum the squared errors of the labelled rows, each the mean over its scores."""
        from torch.nn.functional import mse_loss

        from peft_methods.tasks.number_outputs import mean_loss

        return mean_loss(model, batch, lambda a, b: mse_loss(a, b, reduction="none"))

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the outputs in 32 bits."""
        from peft_methods.tasks.row_outputs import row_logits

        return row_logits(model, batch).float()

    def gather(
        self, outputs: Sequence[Tensor], order: NDArray[np.intp], rows: TokenRows
    ) -> NumberPredictions:
        """Return the outputs in the order of the rows."""
        from peft_methods.tasks.number_outputs import in_order

        assert rows.labels is not None, "there is one for each row"
        return NumberPredictions(in_order(outputs, order), rows.labels)

    def restore(self, read: Callable[[str], NDArray[Any]]) -> NumberPredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        return NumberPredictions.restore(read)

    def evaluate(self, predictions: NumberPredictions, label_names: tuple[str, ...]) -> Quality:
        """Compute all metrics of each score and their means (SciPy, scikit-learn).

        Correlations of predictions that are all equal are 0: they say nothing of the order.
        """
        each = {
            name: {**_metrics(predicted, true), **_spread(predicted, true)}
            | kept_points(true, predicted, len(label_names))
            for name, predicted, true in zip(
                label_names, predictions.predicted.T, predictions.true.T, strict=True
            )
        }
        scores = {
            metric.name: float(np.mean([one[metric.name] for one in each.values()]))
            for metric in self.metrics
        }
        return Quality(scores, {"per_score": each, "rows": len(predictions.labels)})

    def example_scores(self, predictions: NumberPredictions, metric: str) -> Scores:
        """Return absolute errors, and an example's contribution to the other metrics."""
        return example_scores(predictions.predicted, predictions.true, metric)

    def trivial_baseline(
        self, splits: Mapping[str, LabelledTexts], label_names: tuple[str, ...]
    ) -> Mapping[str, float]:
        """Return the metrics of predicting the mean of train. It has no correlation: 0."""
        train, test = (
            np.asarray(splits[name].labels, dtype=np.float64).reshape(len(splits[name]), -1)
            for name in ("train", "test")
        )
        constant = NumberPredictions(
            np.broadcast_to(train.mean(axis=0), test.shape).astype(np.float32), test
        )
        return self.scores(constant)

    def views(self, qualities: Sequence[Mapping[str, Any]]) -> Sequence[View]:
        """Return predicted against true scores, and the metrics of each of several scores."""
        return number_views(qualities)


def _metrics(predicted: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_absolute_error, r2_score

    is_constant = np.ptp(predicted) == 0 or np.ptp(true) == 0
    # Values in 32 bits that differ at all are far enough from constant in 64 bits.
    return {
        "spearman": 0.0 if is_constant else float(spearmanr(predicted, true).statistic),
        "pearson": 0.0 if is_constant else float(pearsonr(predicted, true).statistic),
        "mae": float(mean_absolute_error(true, predicted)),
        "r2": 0.0 if np.ptp(true) == 0 else float(r2_score(true, predicted)),
    }


def _spread(predicted: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    return {
        "lowest": float(predicted.min()),
        "highest": float(predicted.max()),
        "true_lowest": float(true.min()),
        "true_highest": float(true.max()),
        "bias": float((predicted - true).mean()),
    }
