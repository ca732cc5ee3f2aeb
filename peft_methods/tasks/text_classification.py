"""Text classification: one of several classes for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.data.columns import find_columns
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.labelling import ParsedData
from peft_methods.data.raw import RawData
from peft_methods.models.model_head import ModelHead
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.base import Batch, LossSum, Quality, Scores, Task
from peft_methods.tasks.class_labels import (
    check_classes,
    note_on_delimiters,
    number_labels,
    parse_labels,
)
from peft_methods.tasks.class_predictions import ClassPredictions
from peft_methods.tasks.class_scores import SCORES, confusion, scores_of_confusion
from peft_methods.tasks.class_views import class_views
from peft_methods.tasks.metrics import quality
from peft_methods.tasks.views import View

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from peft_methods.data.token_rows import TokenRows
    from peft_methods.tasks.collate import Collator

LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "coarse_label", "sentiment")
OTHER_TASKS = (  # for users whose columns no task recognises
    ' For other labels than classes set task: "regression" (scores), "multilabel", '
    '"token_classification" (words and tags) or "causal_lm" (prompts and completions).'
)


class TextClassification(Task):
    """One class per text. The loss is cross-entropy, in nats."""

    name = "text_classification"
    title = "Text classification"
    peft_type = "SEQ_CLS"
    trivial = "always predicting the most frequent class"
    has_classes = True
    head = ModelHead(
        auto_model="AutoModelForSequenceClassification",
        tables=("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",),
        needed="a model that can carry a classifier",
        examples=(
            "an encoder such as BERT, RoBERTa or DeBERTa, a decoder such as Llama, Qwen or GPT-2, "
            "or an encoder-decoder such as T5 or BART"
        ),
        encoder_decoders=True,
        # The decoder of UMT5 reads the padding after its tokens, in transformers 5.17.
        excluded=("layoutlmv2", "perceiver", "tapas", "umt5"),
    )
    metrics = (
        quality("accuracy", "Accuracy"),
        quality("macro_f1", "Macro F1", label="macro F1"),
        quality("weighted_f1", "Weighted F1", label="weighted F1"),
        quality("macro_precision", "Macro precision"),
        quality("macro_recall", "Macro recall"),
    )
    further_metrics = (quality("validation_accuracy", "Validation accuracy"),)

    def parse(self, raw: RawData, spec: DataSpec) -> ParsedData:
        """Return texts and class numbers. Raises `DataError` that names the cause."""
        columns = find_columns(raw, spec, LABEL_COLUMNS, other_tasks=OTHER_TASKS)
        labels = {
            split: parse_labels(table.values(columns.label), columns.label, split, spec)
            for split, table in raw.tables.items()
        }
        numbered = number_labels(labels, raw.class_names.get(columns.label), spec)
        tables = {}
        for split, table in raw.tables.items():
            texts, pairs = columns.texts_of(table, split, spec)
            tables[split] = LabelledTexts(texts, numbered.numbers[split], pairs)
        notes = note_on_delimiters(labels, columns.label)
        return ParsedData(tables, numbered.names, numbered.merged, notes)

    def random_label_names(self, spec: DataSpec) -> tuple[str, ...]:
        """Return `data.classes` names, two without that setting."""
        return tuple(f"class {number}" for number in range(spec.classes or 2))

    def random_labels(self, rng: np.random.Generator, rows: int, names: int) -> list[int]:
        """Draw classes in equal shares."""
        drawn: list[int] = rng.permutation(np.arange(rows) % names).tolist()
        return drawn

    def strata(self, labels: Sequence[int]) -> Sequence[int]:
        """Return the classes."""
        return labels

    def check_splits(
        self, splits: dict[str, LabelledTexts], label_names: tuple[str, ...], spec: DataSpec
    ) -> None:
        """Raise `DataError` if all rows of a split have the same class."""
        check_classes(splits, label_names, spec)

    def example_columns(self, rows: int) -> Mapping[str, list[Any]]:
        """Return short texts that are good or bad, with the class as a word."""
        words, labels = ("good", "bad"), ("yes", "no")
        texts = [" ".join(["plot", *[words[i % 2]] * (1 + i % 5), str(i)]) for i in range(rows)]
        return {"text": texts, "label": [labels[i % 2] for i in range(rows)]}

    def collator(self, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> Collator:
        """Return a collator whose batches have one label per row."""
        from peft_methods.tasks.collate import Collator

        return Collator(tokenizer, length)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Sum the cross-entropy of the labelled rows."""
        from torch.nn.functional import cross_entropy

        from peft_methods.tasks.collate import NO_LABEL
        from peft_methods.tasks.row_outputs import row_logits

        labels, logits = batch["labels"], row_logits(model, batch)
        return LossSum(
            total=cross_entropy(logits.float(), labels, reduction="sum", ignore_index=NO_LABEL),
            count=(labels != NO_LABEL).sum(),
            correct=(logits.detach().argmax(-1) == labels).sum(),  # no class is NO_LABEL
        )

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits in 32 bits."""
        from peft_methods.tasks.row_outputs import row_logits

        return row_logits(model, batch).float()

    def gather(
        self, outputs: Sequence[Tensor], order: NDArray[np.intp], rows: TokenRows
    ) -> ClassPredictions:
        """Return the logits in the order of the rows. They are copied to the host once."""
        import torch

        joined = torch.cat(list(outputs))
        logits = torch.empty_like(joined)
        logits[torch.as_tensor(order.copy(), device=joined.device)] = joined
        assert rows.labels is not None, "there is one for each row"
        return ClassPredictions(logits.cpu().numpy(), rows.labels)

    def restore(self, read: Callable[[str], NDArray[Any]]) -> ClassPredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        return ClassPredictions.restore(read)

    def evaluate(self, predictions: ClassPredictions, label_names: tuple[str, ...]) -> Quality:
        """Compute all scores, those of each class and the confusion matrix (scikit-learn).

        A class that is never predicted has precision 0 (`zero_division=0`).
        """
        from sklearn.metrics import (
            accuracy_score,
            confusion_matrix,
            precision_recall_fscore_support,
        )

        truth, predicted = predictions.labels, predictions.predicted
        classes = range(len(label_names))

        def scores(average: str | None) -> Any:
            return precision_recall_fscore_support(
                truth, predicted, labels=classes, average=average, zero_division=0
            )

        each, names = scores(None), ("precision", "recall", "f1", "support")
        averages = {
            f"{average}_{name}": float(value)
            for average in ("macro", "weighted")
            for name, value in zip(names[:3], scores(average), strict=False)
        }
        return Quality(
            scores={"accuracy": float(accuracy_score(truth, predicted)), **averages},
            details={
                "per_class": {
                    label: {name: float(of[i]) for name, of in zip(names, each, strict=True)}
                    for i, label in enumerate(label_names)
                },
                "confusion": confusion_matrix(truth, predicted, labels=classes).tolist(),
            },
        )

    def example_scores(self, predictions: ClassPredictions, metric: str) -> Scores:
        """Return 1 or 0 for accuracy, and an example's contribution to the other metrics."""
        classes = predictions.logits.shape[1]
        return SCORES[metric](predictions.predicted, predictions.labels, classes)

    def scores(self, predictions: ClassPredictions) -> Mapping[str, float]:
        """Compute every metric from the confusion matrix."""
        classes = predictions.logits.shape[1]
        return scores_of_confusion(confusion(predictions.predicted, predictions.labels, classes))

    def trivial_baseline(
        self, splits: Mapping[str, LabelledTexts], label_names: tuple[str, ...]
    ) -> Mapping[str, float]:
        """Return the scores of always predicting the most frequent class of train.

        Of several equally frequent classes, the one that scores best is predicted.
        """
        train, test = (
            np.bincount(splits[name].labels, minlength=len(label_names)).tolist()
            for name in ("train", "test")
        )
        most = max(train)
        share = max(test[label] for label, count in enumerate(train) if count == most) / sum(test)
        f1 = 2 * share / (1 + share)
        return {
            "accuracy": share,
            "macro_f1": f1 / len(test),
            "weighted_f1": share * f1,
            "macro_precision": share / len(test),
            "macro_recall": (share > 0) / len(test),
        }

    def views(self, qualities: Sequence[Mapping[str, Any]]) -> Sequence[View]:
        """Return the scores by class and the confusion matrix."""
        return class_views(qualities) or ()
