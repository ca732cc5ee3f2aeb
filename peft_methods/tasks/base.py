"""The contract of a task: labels, head, loss, predictions, metrics and views, in one class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from peft_methods.data.labelled_texts import Label, LabelledTexts
from peft_methods.data.labelling import ParsedData
from peft_methods.data.raw import RawData
from peft_methods.data.token_rows import TokenRows
from peft_methods.models.model_head import ModelHead
from peft_methods.recipes.schema import DataSpec, Recipe
from peft_methods.tasks.evaluations import Evaluation
from peft_methods.tasks.metrics import Metric, check_metric
from peft_methods.tasks.row_ends import with_readable_ends
from peft_methods.tasks.views import View

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from peft_methods.tasks.collate import Collator

Batch = Mapping[str, Any]  # tensors by column, and `labels`
Arrays = Mapping[str, NDArray[Any]]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class LossSum:
    """The loss of a batch as tensors on its device, so that the host never waits for them.

    `total` is the sum over the `count` labelled examples; fillers of a batch count as none.
    `correct` is the number of right answers, or None for a task without right and wrong.
    """

    total: Tensor
    count: Tensor
    correct: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """The loss of one example; 0 without any."""
        return self.total / self.count.clamp(min=1)


@dataclass(frozen=True)
class Quality:
    """The quality of predictions: values by metric, and `details` for the views (JSON values)."""

    scores: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return scores and details as JSON values, as a record stores them."""
        return {**self.scores, **self.details}


class Predictions(Protocol):
    """What is kept of the predictions for a split, in the order of its rows."""

    @property
    def labels(self) -> NDArray[Any]:
        """The true labels. Predictions with equal labels are for the same examples."""

    @property
    def is_finite(self) -> bool:
        """Whether every output is finite. Others are not evaluated."""

    @property
    def loss(self) -> float:
        """The mean loss of an example."""

    def arrays(self) -> Arrays:
        """Return the arrays to store, by name. `Task.restore` reads them."""


class Task(ABC):
    """A kind of labels. Every class of a task has exactly one instance, without any state.

    `metrics` are those of `evaluate`; the first selects the best epoch unless the recipe names
    another. `further_metrics` are the others of its records: fields of the best epoch, and what
    `extra_evaluations` measure. `peft_type` is PEFT's name of the task. `trivial` describes the
    predictor of `trivial_baseline`. `has_classes`: each row is of one class, its stratum.
    `texts_repeat`: rows with the same text and different labels are all right.
    `baseline_is_untrained`: the trivial predictor is the model before training, which is measured
    in place of `trivial_baseline`. `tunes_on_validation`: test predictions need `tuned`.
    `checks_tokens`: `check_tokens` may refuse a split. `packs`: there is a `packed_collator`.
    Tables show the first `shown_metrics`. `loss_unit` is that of an example's loss. `usage` is
    Markdown for the README of a saved model: how to read its outputs, where it is not obvious.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    head: ModelHead
    peft_type: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    further_metrics: ClassVar[tuple[Metric, ...]] = ()
    shown_metrics: ClassVar[int] = 2
    loss_unit: ClassVar[str] = "nats"
    trivial: ClassVar[str]
    has_classes: ClassVar[bool] = False
    texts_repeat: ClassVar[bool] = False
    baseline_is_untrained: ClassVar[bool] = False
    tunes_on_validation: ClassVar[bool] = False
    checks_tokens: ClassVar[bool] = False
    packs: ClassVar[bool] = False
    usage: ClassVar[str] = ""

    @property
    def all_metrics(self) -> tuple[Metric, ...]:
        """Every quality metric in a record."""
        return (*self.metrics, *self.further_metrics)

    @property
    def selection_metrics(self) -> tuple[Metric, ...]:
        """The metrics that `predict` alone gives, so that each epoch has them."""
        return self.metrics

    def metric(self, name: str) -> Metric:
        """Return one of the metrics of `evaluate`. Raises `OptionError` for an unknown name."""
        check_metric(name, self.metrics, self.title.lower())
        return next(metric for metric in self.metrics if metric.name == name)

    # From columns to labels

    def recognises(self, raw: RawData, spec: DataSpec) -> str:
        """Return why the columns can only be for this task; empty if they need not be.

        The reason completes "the task is NAME, since".
        """
        return ""

    @abstractmethod
    def parse(self, raw: RawData, spec: DataSpec) -> ParsedData:
        """Return texts and labels from the columns. Raises `DataError` that names the cause."""

    @abstractmethod
    def random_label_names(self, spec: DataSpec) -> tuple[str, ...]:
        """Return the label names of rows that are drawn at random."""

    @abstractmethod
    def random_labels(self, rng: np.random.Generator, rows: int, names: int) -> list[Any]:
        """Draw the labels of rows that are drawn at random."""

    def random_rows(self, texts: list[str], labels: list[Any]) -> LabelledTexts:
        """Return the rows of texts and labels that are drawn at random."""
        return LabelledTexts(texts, labels)

    def strata(self, labels: Sequence[Label]) -> Sequence[int]:
        """Return each row's stratum, 0..n-1. Every split gets nearly the same share of each."""
        return [0] * len(labels)

    def check_splits(
        self, splits: dict[str, LabelledTexts], label_names: tuple[str, ...], spec: DataSpec
    ) -> None:
        """Raise `DataError` if a split is useless for this task."""
        return

    @abstractmethod
    def example_columns(self, rows: int) -> Mapping[str, list[Any]]:
        """Return the columns of a tiny data set that can be learned. Tests use it."""

    # From rows to a loss

    def encode(
        self,
        table: LabelledTexts,
        tokenizer: PreTrainedTokenizerBase,
        spec: DataSpec,
        cut: int | None,
    ) -> TokenRows:
        """Return a split as token ids with labels; at most `cut` tokens a row, None: all.

        Here it is the tokenizer's ids of texts and second texts, and one label per row.
        """
        columns: dict[str, Any] = {"input_ids": [], "attention_mask": []}
        if len(table):
            limit: dict[str, Any] = {"truncation": cut is not None, "max_length": cut}
            columns = dict(tokenizer(table.texts, table.pairs, **limit, verbose=False))
            columns = with_readable_ends(columns, tokenizer)
        return TokenRows.of(columns, table.labels)

    def encoding_settings(self, spec: DataSpec) -> tuple[Any, ...]:
        """Return the settings of the data that `encode` depends on, beside the length."""
        return ()

    def check_tokens(self, rows: Mapping[str, TokenRows], spec: DataSpec) -> tuple[str, ...]:
        """Return remarks on the encoded splits. Raises `DataError` if one is useless."""
        return ()

    @abstractmethod
    def collator(self, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> Collator:
        """Return a collator that pads to the longest row of a batch, or to `length` tokens."""

    def packed_collator(self, tokenizer: PreTrainedTokenizerBase, length: int) -> Collator:
        """Return a collator that concatenates examples to rows of at most `length` tokens."""
        raise NotImplementedError

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Run the model on a batch and sum its loss. The only loss of every engine."""

    def examples_in_batch(self, batch: Batch) -> int:
        """Return the number of examples in the loss of a batch. The host must know it."""
        return int(batch.get("rows", len(batch["labels"])))

    def examples_in_rows(self, rows: TokenRows) -> int:
        """Return the number of examples in the loss of one epoch over these rows."""
        return len(rows)

    # From a model to metrics

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what is kept of a batch's outputs, one entry per row, on the device.

        The batch has its labels, too: tasks that keep losses need them.
        """

    @abstractmethod
    def gather(
        self, outputs: Sequence[Tensor], order: NDArray[np.intp], rows: TokenRows
    ) -> Predictions:
        """Join the outputs of all batches. Output i belongs to row `order[i]`."""

    def generate(
        self,
        predictions: Predictions,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        table: LabelledTexts,
        recipe: Recipe,
    ) -> Predictions:
        """Add what the model writes for each row to its predictions; here nothing.

        The time is not counted as training or evaluation. The caller sets the model to evaluation.
        """
        return predictions

    def tuned(self, predictions: Any, validation: Any) -> Predictions:
        """Return test predictions with what the same model's validation predictions decide.

        For example a threshold. Nothing may be chosen on test predictions themselves.
        """
        return predictions

    @abstractmethod
    def restore(self, read: Callable[[str], NDArray[Any]]) -> Predictions:
        """Return stored predictions. `read` returns an array by name. Raises `ValueError`."""

    @abstractmethod
    def evaluate(self, predictions: Any, label_names: tuple[str, ...]) -> Quality:
        """Compute every metric of the predictions. They must be finite."""

    def examples_of(self, predictions: Any, metric: str) -> NDArray[Any]:
        """Return what identifies the examples of a metric. Models are compared on equal ones."""
        return np.asarray(predictions.labels)

    @abstractmethod
    def example_scores(self, predictions: Any, metric: str) -> Scores:
        """Return one score per example. Their mean is the metric; paired tests compare them."""

    def scores(self, predictions: Any) -> Mapping[str, float]:
        """Compute every metric of finite predictions from `example_scores`, without details.

        A task may do so faster: a report verifies thousands of runs.
        """
        return {
            metric.name: float(self.example_scores(predictions, metric.name).mean())
            for metric in self.metrics
        }

    @abstractmethod
    def trivial_baseline(
        self, splits: Mapping[str, LabelledTexts], label_names: tuple[str, ...]
    ) -> Mapping[str, float]:
        """Return the test metrics of a predictor that ignores the texts. There are test rows."""

    def extra_evaluations(self, recipe: Recipe) -> Sequence[Evaluation]:
        """Return further evaluations of a trained model. They are not timed as training."""
        return ()

    # From records to people

    def views(self, qualities: Sequence[Mapping[str, Any]]) -> Sequence[View]:
        """Return views of one method's results. `qualities` are those of its runs (`plain`)."""
        return ()

    def remark(self, qualities: Sequence[Mapping[str, Any]]) -> str:
        """Return a sentence for below the tables on the results of a recipe's runs (`plain`)."""
        return ""
