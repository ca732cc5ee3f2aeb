"""Forgetting: the perplexity of general text before and after training on a task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from peft_methods.data.bundled import sentences
from peft_methods.data.columns import check_texts
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.raw import find_column
from peft_methods.data.sources import error_of, read_source
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import DataSpec, Recipe
from peft_methods.tasks.evaluations import Evaluation
from peft_methods.tasks.lm_encoding import encode_rows, labelled_tokens
from peft_methods.tasks.metrics import NATS, NUMBER, Metric
from peft_methods.utils.errors import DataError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

ROWS = 500  # of the general text; more cost time and change the mean little
COLUMNS = ("text", "content", "document", "sentence")
AFTER, BEFORE, RISE = "general_perplexity", "general_perplexity_before", "forgetting"
FORGETTING_METRICS = (
    Metric(AFTER, "Perplexity of general text", NUMBER, higher_is_better=False, bounds=(1.0, None)),
    Metric(
        BEFORE,
        "Perplexity of general text before training",
        NUMBER,
        higher_is_better=None,
        bounds=(1.0, None),
    ),
    Metric(RISE, "Forgetting", NATS, higher_is_better=False, bounds=(None, None)),
)


def forgetting(recipe: Recipe) -> Sequence[Evaluation]:
    """Return the evaluation of `data.general_text`, or none without that setting.

    It measures the perplexity of the first 500 rows, each cut to `data.max_length` tokens. The
    forgetting is the rise of the loss per token, in nats: log(after / before).
    """
    if recipe.data.general_text is None:
        return ()

    def measure(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, float]:
        return {AFTER: perplexity_of(general_texts(recipe.data), model, tokenizer, recipe)}

    def check() -> None:
        general_texts(recipe.data)

    return (Evaluation("Perplexity of general text", measure, _compared, check),)


def _compared(before: Mapping[str, float], after: Mapping[str, float]) -> Mapping[str, float]:
    if AFTER not in before:
        return {}
    return {BEFORE: before[AFTER], RISE: math.log(after[AFTER] / before[AFTER])}


def general_texts(spec: DataSpec) -> LabelledTexts:
    """Return the rows of `data.general_text`: its test, validation or train rows, in this order.

    Raises `DataError` that names the setting.
    """
    assert spec.general_text is not None, "the recipe names one"
    own = DataSpec(spec.general_text, "all", 1, 1, sizes="at_most")
    try:
        raw = sentences(own.source) if own.source.startswith(PREFIX) else read_source(own)
    except DataError as error:
        text = error_of(error, "data.general_text")
        raise DataError(text, setting="data.general_text") from None
    split, table = next(
        (split, raw.tables[split])
        for split in ("test", "validation", "train", "all")
        if split in raw.tables
    )
    column = next((one for name in COLUMNS if (one := find_column(name, table.columns))), None)
    if column is None:
        raise DataError(
            f"data.general_text = {spec.general_text!r}: no column {', '.join(COLUMNS)} among "
            f"{', '.join(table.columns)}. Name the column with the text 'text'.",
            setting="data.general_text",
        )
    texts = check_texts(table.values(column)[:ROWS], column, split, own)
    return LabelledTexts(texts, [""] * len(texts))


def perplexity_of(
    texts: LabelledTexts, model: nn.Module, tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> float:
    """Return exp of the mean loss of all tokens but the first of each text."""
    import torch

    from peft_methods.models import ranks
    from peft_methods.tasks.lm_loss import LanguageCollator, token_losses

    rows = encode_rows(texts, tokenizer, recipe.data, recipe.data.max_length)
    collate, size = LanguageCollator(tokenizer), recipe.budget.evaluation_batch_size
    device, total = next(model.parameters()).device, 0.0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), size):
            batch = collate([rows[row] for row in range(start, min(start + size, len(rows)))])
            moved = {
                name: one.to(device) if isinstance(one, torch.Tensor) else one
                for name, one in batch.items()
            }
            total += float(token_losses(model, moved)[0].double().sum())
    model.train(was_training)
    ranks.divide_again(model)
    return perplexity(total / max(1, int(labelled_tokens(rows).sum())))


def perplexity(loss: float) -> float:
    """Return exp of a loss per token in nats; losses far above any model's give a finite number."""
    return math.exp(min(loss, 700.0))
