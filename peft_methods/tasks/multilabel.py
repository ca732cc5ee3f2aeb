"""Several labels: any number of labels, also none, for a text or a pair of texts."""

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
from peft_methods.tasks.column_kinds import (
    are_lists_of_labels,
    are_lists_of_words,
    column_among,
    values_of,
)
from peft_methods.tasks.label_columns import find_label_columns
from peft_methods.tasks.metrics import quality
from peft_methods.tasks.set_checks import check_label_sets, rarest_labels
from peft_methods.tasks.set_labels import parse_label_sets
from peft_methods.tasks.set_predictions import SetPredictions
from peft_methods.tasks.set_scores import (
    average_precision_scores,
    macro_f1_scores,
    micro_f1_scores,
    subset_scores,
)
from peft_methods.tasks.set_views import label_views, threshold_remark
from peft_methods.tasks.text_classification import TextClassification
from peft_methods.tasks.views import View

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from peft_methods.data.token_rows import TokenRows
    from peft_methods.tasks.collate import Collator

LABEL_COLUMNS = ("labels", "label", "tags", "categories", "genres", "topics", "emotions", "targets")
RARE = 1e-6  # a label's frequency as a probability that has a logit


class MultiLabel(Task):
    """Any number of labels per text. The loss is binary cross-entropy, the mean over labels, nats.

    A label is predicted where its probability is at least 0.5. `micro_f1_tuned` has, for all
    labels, the threshold with the highest micro F1 on the validation rows instead.
    """

    name = "multilabel"
    title = "Multi-label classification"
    peft_type = "SEQ_CLS"
    trivial = "giving every row the label frequencies of train"
    tunes_on_validation = True
    shown_metrics = 4
    head = replace(TextClassification.head, problem_type="multi_label_classification")
    metrics = (
        quality("micro_f1", "Micro F1", label="micro F1"),
        quality("macro_f1", "Macro F1", label="macro F1"),
        quality("average_precision", "Average precision"),
        quality(
            "micro_f1_tuned",
            "Micro F1, tuned threshold",
            label="micro F1 at the threshold tuned on validation",
        ),
        quality("subset_accuracy", "Subset accuracy"),
    )

    def recognises(self, raw: RawData, spec: DataSpec) -> str:
        """Return whether the label column holds lists of labels, and no column lists of words."""
        column = column_among(raw.first, spec.label, LABEL_COLUMNS)
        others = [values_of(raw.first, one) for one in raw.first.columns if one != column]
        is_tagged = any(map(are_lists_of_words, others))
        is_set = are_lists_of_labels(values_of(raw.first, column))
        return f"the values of {column!r} are lists of labels" if is_set and not is_tagged else ""

    def parse(self, raw: RawData, spec: DataSpec) -> ParsedData:
        """Return texts and labels as 0 or 1 for each name. Raises `DataError` with the cause."""
        columns = find_label_columns(raw, spec, LABEL_COLUMNS)
        found = parse_label_sets(raw, columns.labels, spec)
        tables = columns.tables(raw, dict(found.flags), spec)
        return ParsedData(tables, found.names, notes=found.notes)

    def random_label_names(self, spec: DataSpec) -> tuple[str, ...]:
        """Return `data.classes` names, two without that setting."""
        return tuple(f"label {number}" for number in range(spec.classes or 2))

    def random_labels(
        self, rng: np.random.Generator, rows: int, names: int
    ) -> list[tuple[int, ...]]:
        """Draw one or two labels for each row."""
        drawn = np.zeros((rows, names), np.int64)
        for _ in range(2):
            drawn[np.arange(rows), rng.integers(0, names, rows)] = 1
        return [tuple(row) for row in drawn.tolist()]

    def strata(self, labels: Sequence[Label]) -> Sequence[int]:
        """Return the rarest label of each row."""
        return rarest_labels(labels)

    def check_splits(
        self, splits: dict[str, LabelledTexts], label_names: tuple[str, ...], spec: DataSpec
    ) -> None:
        """Raise `DataError` if all rows of a split have the same labels."""
        check_label_sets(splits, label_names, spec)

    def example_columns(self, rows: int) -> Mapping[str, list[Any]]:
        """Return short texts with the labels of the words in them; every fourth has none."""
        words = ("good", "long")
        has = [[word for bit, word in enumerate(words) if i % 4 >> bit & 1] for i in range(rows)]
        texts = [" ".join(["plot", *labels, str(i)]) for i, labels in enumerate(has)]
        return {"text": texts, "labels": has}

    def collator(self, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> Collator:
        """Return a collator whose labels are numbers."""
        from peft_methods.tasks.number_outputs import NumberCollator

        return NumberCollator(tokenizer, length)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Sum the binary cross-entropy of the labelled rows, each the mean over labels."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        from peft_methods.tasks.number_outputs import mean_loss

        return mean_loss(
            model, batch, lambda a, b: binary_cross_entropy_with_logits(a, b, reduction="none")
        )

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits in 32 bits."""
        from peft_methods.tasks.row_outputs import row_logits

        return row_logits(model, batch).float()

    def gather(
        self, outputs: Sequence[Tensor], order: NDArray[np.intp], rows: TokenRows
    ) -> SetPredictions:
        """Return the logits in the order of the rows, without a chosen threshold."""
        from peft_methods.tasks.number_outputs import in_order

        assert rows.labels is not None, "there are some for each row"
        return SetPredictions(in_order(outputs, order), rows.labels)

    def tuned(self, predictions: SetPredictions, validation: SetPredictions) -> SetPredictions:
        """Return the predictions with the threshold that is best on validation predictions."""
        return predictions.with_threshold_of(validation)

    def restore(self, read: Callable[[str], NDArray[Any]]) -> SetPredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        return SetPredictions.restore(read)

    def evaluate(self, predictions: SetPredictions, label_names: tuple[str, ...]) -> Quality:
        """Compute all metrics and those of each label (scikit-learn).

        A label that is never predicted has precision 0, one that no row has has recall and F1 0
        (`zero_division=0`). Average precision leaves out labels that no row has.
        """
        from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

        true, guessed, threshold = predictions.labels, predictions.predicted, predictions.threshold
        each = precision_recall_fscore_support(true, guessed, average=None, zero_division=0)
        precisions = _average_precisions(predictions)
        per_label = {
            name: {
                "precision": float(each[0][i]),
                "recall": float(each[1][i]),
                "f1": float(each[2][i]),
                "average_precision": precisions[i],
                "support": float(each[3][i]),
            }
            for i, name in enumerate(label_names)
        }
        known = [one for one in precisions if one is not None]

        def f1(chosen: NDArray[np.bool_], average: str) -> float:
            return float(f1_score(true, chosen, average=average, zero_division=0))

        scores = {
            "micro_f1": f1(guessed, "micro"),
            "macro_f1": f1(guessed, "macro"),
            "subset_accuracy": float(accuracy_score(true, guessed)),
            "average_precision": float(np.mean(known)) if known else 0.0,
            "micro_f1_tuned": f1(predictions.predicted_at(threshold), "micro"),
        }
        return Quality(scores, {"per_label": per_label, "threshold": threshold})

    def example_scores(self, predictions: SetPredictions, metric: str) -> Scores:
        """Return 1 or 0 for subset accuracy, and an example's contribution to other metrics."""
        true = predictions.labels.astype(np.float64)
        if metric == "average_precision":
            return average_precision_scores(predictions.probabilities, true)
        if metric == "micro_f1_tuned":
            chosen = predictions.predicted_at(predictions.threshold)
            return micro_f1_scores(chosen.astype(np.float64), true)
        score = {
            "micro_f1": micro_f1_scores,
            "macro_f1": macro_f1_scores,
            "subset_accuracy": subset_scores,
        }[metric]
        return score(predictions.predicted.astype(np.float64), true)

    def trivial_baseline(
        self, splits: Mapping[str, LabelledTexts], label_names: tuple[str, ...]
    ) -> Mapping[str, float]:
        """Return the metrics of giving every row the frequency of each label in train.

        Its threshold is chosen on validation rows, as that of a model. Its average precision is
        the share of test rows that have a label.
        """
        labels = {name: np.asarray(table.labels, dtype=np.int64) for name, table in splits.items()}
        frequency = labels["train"].mean(axis=0).clip(RARE, 1 - RARE)
        logits = np.log(frequency / (1 - frequency)).astype(np.float32)
        test, validation = (
            SetPredictions(np.tile(logits, (len(labels[name]), 1)), labels[name])
            for name in ("test", "validation")
        )
        return self.scores(self.tuned(test, validation) if len(validation.labels) else test)

    def views(self, qualities: Sequence[Mapping[str, Any]]) -> Sequence[View]:
        """Return the scores by label, with the thresholds."""
        return label_views(qualities)

    def remark(self, qualities: Sequence[Mapping[str, Any]]) -> str:
        """Name the thresholds that the metrics were computed with."""
        return threshold_remark(qualities)


def _average_precisions(predictions: SetPredictions) -> list[float | None]:
    """Return the average precision of each label, None for labels that no row has."""
    from sklearn.metrics import average_precision_score

    return [
        float(average_precision_score(true, scores)) if true.any() else None
        for true, scores in zip(predictions.labels.T, predictions.probabilities.T, strict=True)
    ]
