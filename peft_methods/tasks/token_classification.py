"""Token classification: a tag for each word, which mark entities such as names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.labelling import ParsedData
from peft_methods.data.raw import RawData
from peft_methods.data.token_rows import TokenRows
from peft_methods.models.model_head import ModelHead
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.base import Batch, LossSum, Quality, Scores, Task
from peft_methods.tasks.metrics import quality
from peft_methods.tasks.tag_labels import (
    check_known,
    label_names_of,
    labelled,
    read_tagged,
    tagged_columns,
    types_of,
)
from peft_methods.tasks.tag_predictions import UNREAD, TagPredictions, gathered
from peft_methods.tasks.tag_rows import encode_words, labelled_tokens, notes_on_unread
from peft_methods.tasks.tag_schemes import to_bio
from peft_methods.tasks.tag_scores import Counts, all_scores, sentence_scores
from peft_methods.tasks.tag_views import PER_TYPE, TYPE_CONFUSION, tag_views
from peft_methods.tasks.views import View
from peft_methods.utils.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from peft_methods.tasks.collate import Collator

RANDOM_TAGS = 9  # of rows drawn at random without data.classes: as many as CoNLL-2003 has
USAGE = """
The label of a word is that of its first token:

```text
batch = tokenizer([words], is_split_into_words=True, return_tensors="pt")
labels = [model.config.id2label[tag] for tag in model(**batch).logits[0].argmax(-1).tolist()]
number_of_word = batch.word_ids(0)  # of each token; None: no word
```

Load a tokenizer that separates words by blanks alone, as RoBERTa's does, with
`add_prefix_space=True` for this. For plain texts,
`pipeline("token-classification", model, tokenizer=tokenizer, aggregation_strategy="first")` returns
whole entities.
"""


class TokenClassification(Task):
    """One BIO tag per word, on its first token. The loss is the cross-entropy of these, in nats.

    The mean is over the labelled tokens of an optimizer step, not over sentences. Without
    accumulation of gradients that is what the models of transformers compute.
    """

    name = "token_classification"
    title = "Token classification"
    peft_type = "TOKEN_CLS"
    trivial = "finding no entity"
    usage = USAGE
    head = ModelHead(
        auto_model="AutoModelForTokenClassification",
        tables=(
            "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
            "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
        ),
        needed="an encoder that can carry a token classifier",
        examples="an encoder such as BERT, RoBERTa, DistilBERT, MPNet or DeBERTa",
    )
    metrics = (
        quality("entity_f1", "Entity F1", label="entity F1"),
        quality("entity_precision", "Entity precision"),
        quality("entity_recall", "Entity recall"),
        quality("token_accuracy", "Token accuracy"),
    )

    def recognises(self, raw: RawData, spec: DataSpec) -> str:
        """Return whether there are lists of words, and lists of as many tags."""
        return tagged_columns(raw, spec)

    def parse(self, raw: RawData, spec: DataSpec) -> ParsedData:
        """Return words and BIO tags. Raises `DataError` that names the cause."""
        tagged = read_tagged(raw, spec)
        bio = to_bio({split: one.tags for split, one in tagged.items()}, spec.source)
        types = {split: types_of(tags) for split, tags in bio.tags.items()}
        known = "train" if "train" in types else next(iter(types))
        names = label_names_of(sorted(types[known]))
        check_known(types, sorted(types[known]), spec, known)
        tables = {split: labelled(one, bio.tags[split], names) for split, one in tagged.items()}
        return ParsedData(tables, names, notes=bio.notes())

    def random_label_names(self, spec: DataSpec) -> tuple[str, ...]:
        """Return `data.classes` tags."""
        count = spec.classes or RANDOM_TAGS
        return label_names_of([f"type {number}" for number in range(count)])[:count]

    def random_labels(self, rng: np.random.Generator, rows: int, names: int) -> list[Any]:
        """Draw what `random_rows` needs for each row: a seed and the number of tags."""
        return [(seed, names) for seed in rng.integers(0, 2**32, rows).tolist()]

    def random_rows(self, texts: list[str], labels: list[Any]) -> LabelledTexts:
        """Return rows whose words are the parts of the texts, with random tags."""
        words = [tuple(text.split()) for text in texts]
        tags = [
            tuple(np.random.default_rng(seed).integers(0, names, len(row)).tolist())
            for row, (seed, names) in zip(words, labels, strict=True)
        ]
        return LabelledTexts(texts, tags, words=words)

    def strata(self, labels: Sequence[tuple[int, ...]]) -> Sequence[int]:
        """Return 1 for rows with an entity, 0 for the others."""
        return [int(any(tags)) for tags in labels]

    def check_splits(
        self, splits: dict[str, LabelledTexts], label_names: tuple[str, ...], spec: DataSpec
    ) -> None:
        """Raise `DataError` if a split has no entity: its F1 would be 0 for every method."""
        for split, table in splits.items():
            if len(table) and not any(map(any, table.labels)):
                raise DataError(
                    f"{spec.source}: the {len(table)} rows of {split} have no entity, so nothing "
                    f"can be learned from them or measured on them. Take more rows (data.{split}).",
                    setting=f"data.{split}",
                )

    def example_columns(self, rows: int) -> Mapping[str, list[Any]]:
        """Return short sentences in which praise and blame are the entities."""
        marked = (("good", "praise"), ("bad", "blame"))
        words, tags = [], []
        for row in range(rows):
            word, kind = marked[row % 2]
            words.append(["film", *["and"] * (row % 4), "very", word, str(row)])
            tags.append(["O", *["O"] * (row % 4), f"B-{kind}", f"I-{kind}", "O"])
        return {"tokens": words, "ner_tags": tags}

    def encode(
        self,
        table: LabelledTexts,
        tokenizer: PreTrainedTokenizerBase,
        spec: DataSpec,
        cut: int | None,
    ) -> TokenRows:
        """Return token ids, which token begins which word, and the label of every word."""
        return encode_words(table, tokenizer, cut)

    def check_tokens(self, splits: Mapping[str, TokenRows], spec: DataSpec) -> tuple[str, ...]:
        """Return how many words and entities are cut off, if there are any."""
        return notes_on_unread(splits, spec.max_length)

    def collator(self, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> Collator:
        """Return a collator whose batches have one label per token."""
        from peft_methods.tasks.tag_collate import TagCollator

        return TagCollator(tokenizer, length)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Sum the cross-entropy of the labelled tokens."""
        from torch.nn.functional import cross_entropy

        from peft_methods.tasks.collate import NO_LABEL, PLACES

        labels, logits = batch["labels"], self._logits(model, batch)
        if PLACES in batch:
            logits = logits.flatten(0, 1).index_select(0, batch[PLACES])
        return LossSum(
            total=cross_entropy(
                logits.float().flatten(0, -2),
                labels.flatten(),
                reduction="sum",
                ignore_index=NO_LABEL,
            ),
            count=(labels != NO_LABEL).sum(),
            correct=(logits.detach().argmax(-1) == labels).sum(),  # no label is NO_LABEL
        )

    def examples_in_batch(self, batch: Batch) -> int:
        """Return the number of labelled tokens, which the collator has counted."""
        return int(batch["examples"])

    def examples_in_rows(self, rows: TokenRows) -> int:
        """Return the number of labelled tokens."""
        return labelled_tokens(rows)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits of all tokens in 32 bits."""
        return self._logits(model, batch).float()

    @staticmethod
    def _logits(model: nn.Module, batch: Batch) -> Tensor:
        from peft_methods.tasks.collate import model_inputs

        logits: Tensor = model(**model_inputs(batch)).logits
        return logits

    def gather(
        self, outputs: Sequence[Tensor], order: NDArray[np.intp], rows: TokenRows
    ) -> TagPredictions:
        """Return the tag of each word, in the order of the rows."""
        return gathered(outputs, order, rows)

    def restore(self, read: Callable[[str], NDArray[Any]]) -> TagPredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        return TagPredictions.restore(read)

    def evaluate(self, predictions: TagPredictions, label_names: tuple[str, ...]) -> Quality:
        """Compute all scores and those of each type by seqeval, in its default mode.

        That is the convention of the CoNLL shared tasks (`conlleval`): an entity counts if its type
        and both ends are right, an I- after another type begins one, and precision, recall and F1
        are micro averages. A ratio without any entity is 0.
        """
        from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

        true, predicted = (
            [[label_names[tag] for tag in tags] for tags in _by_sentence(all_tags, predictions)]
            for all_tags in (
                predictions.true,
                np.where(predictions.predicted == UNREAD, 0, predictions.predicted),
            )
        )
        micro, each = (
            precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
            for average in ("micro", None)
        )
        found = sorted({kind for kind, *_ in (*get_entities(true), *get_entities(predicted))})
        of_type = dict(zip(found, zip(*each, strict=True), strict=True))
        types, names = [name[2:] for name in label_names[1::2]], ("precision", "recall", "f1")
        scores = {f"entity_{name}": float(value) for name, value in zip(names, micro, strict=False)}
        accuracy = all_scores(Counts.of(predictions))["token_accuracy"]
        columns = (*names, "support")
        return Quality(
            scores=scores | {"token_accuracy": accuracy},
            details={
                PER_TYPE: {
                    kind: dict(
                        zip(columns, map(float, of_type.get(kind, (0, 0, 0, 0))), strict=True)
                    )
                    for kind in types
                },
                TYPE_CONFUSION: _type_confusion(predictions, len(types)),
            },
        )

    def example_scores(self, predictions: TagPredictions, metric: str) -> Scores:
        """Return the contribution of each sentence to a metric."""
        return sentence_scores(Counts.of(predictions), metric)

    def scores(self, predictions: TagPredictions) -> Mapping[str, float]:
        """Compute every metric from sums over sentences."""
        return all_scores(Counts.of(predictions))

    def trivial_baseline(
        self, splits: Mapping[str, LabelledTexts], label_names: tuple[str, ...]
    ) -> Mapping[str, float]:
        """Return the scores of tagging every word O."""
        counts = Counter(tag for tags in splits["test"].labels for tag in tags)
        entities = dict.fromkeys(("entity_f1", "entity_precision", "entity_recall"), 0.0)
        return {**entities, "token_accuracy": counts[0] / counts.total()}

    def views(self, qualities: Sequence[Mapping[str, Any]]) -> Sequence[View]:
        """Return the scores by type of entity, and the matrix of confused types."""
        return tag_views(qualities) or ()


def _by_sentence(tags: NDArray[np.int64], predictions: TagPredictions) -> list[list[int]]:
    """Return the tags of each sentence."""
    return [one.tolist() for one in np.split(tags, np.cumsum(predictions.lengths)[:-1])]


def _type_confusion(predictions: TagPredictions, types: int) -> list[list[int]]:
    """Count words by true type (rows) and predicted type (columns). The last is no entity."""

    def numbered(tags: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(tags <= 0, types, (tags - 1) // 2)

    cells = numbered(predictions.true) * (types + 1) + numbered(predictions.predicted)
    size = types + 1
    counted: list[list[int]] = (
        np.bincount(cells, minlength=size * size).reshape(size, size).tolist()
    )
    return counted
