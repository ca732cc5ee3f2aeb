"""The rows of a recipe: how many are trained on, and how long they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from peft_methods.data import splits
from peft_methods.data.tokenize import tokenize
from peft_methods.models.config import folder_or_id, has_tokenizer
from peft_methods.models.tokenizer import load_tokenizer
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.files import is_only_a_path, path_of

QUANTILES = 21
UNKNOWN_LENGTHS = (
    "the lengths of the rows are unknown (data.token_lengths), so each counts with data.max_length "
    "tokens: times are upper limits"
)


def with_own_rows(recipe: Recipe) -> Recipe:
    """Return the recipe with the numbers, lengths and classes of its data, if these are here.

    Data on the hub are not fetched: the recipe's own numbers hold then. Lengths are counted where
    the model comes with its tokenizer. Raises `DataError` for data that cannot be used.
    """
    data = recipe.data
    is_here = data.source.startswith(PREFIX) or path_of(data.source) is not None
    if not is_here and not is_only_a_path(data.source):
        return recipe
    task = TASKS[recipe.task]
    texts = splits.load(data, task)
    sizes = {name: len(table) for name, table in texts.splits.items()}
    names = texts.facts.label_names
    lengths = data.token_lengths
    if has_tokenizer(replace(recipe.model, source=folder_or_id(recipe.model.source))):
        tokens = tokenize(texts, load_tokenizer(recipe.model, task.head), data, task, check=False)
        spread = np.quantile(tokens.train.lengths, np.linspace(0, 1, QUANTILES))
        lengths = tuple(max(1, round(one)) for one in spread.tolist())
    classes = len(names) if len(names) >= 2 else data.classes
    own = replace(
        data,
        token_lengths=lengths,
        classes=classes,
        train=sizes["train"],
        validation=sizes["validation"],
        test=sizes["test"],
    )
    return replace(recipe, data=own)


def train_rows(recipe: Recipe) -> int | None:
    """Return the number of rows of an epoch; None where only the data could tell."""
    if recipe.data.train_subset is not None:
        return recipe.data.train_subset
    return None if recipe.data.train == "all" else recipe.data.train


def has_known_lengths(recipe: Recipe) -> bool:
    """Whether the tokens of the rows of an epoch are known, so that its time can be estimated."""
    return recipe.budget.padding == "fixed" or recipe.data.token_lengths is not None


def row_lengths(recipe: Recipe) -> list[int] | None:
    """Return the tokens of every row of an epoch, as batches see them; None if unknown."""
    count, data = train_rows(recipe), recipe.data
    if count is None:
        return None
    if recipe.budget.padding == "fixed" or data.token_lengths is None:
        return [data.max_length] * count
    places = np.linspace(0, len(data.token_lengths) - 1, count)
    found = np.interp(places, range(len(data.token_lengths)), data.token_lengths)
    return [int(one) for one in np.minimum(found, data.max_length).round()]


def longest_row(recipe: Recipe) -> int:
    """Return the tokens of the longest batch, which decides the peak."""
    data, padding = recipe.data, recipe.budget.padding
    if padding == "fixed" or data.token_lengths is None:
        return data.max_length
    return min(data.max_length, data.token_lengths[-1])


def usual_row(recipe: Recipe) -> int:
    """Return the mean tokens of a row in a batch, which decide the time.

    Batches hold rows of similar length, so that of a row and that of its batch are nearly the same.
    """
    data, padding = recipe.data, recipe.budget.padding
    if padding == "fixed" or data.token_lengths is None:
        return data.max_length
    cut = np.minimum(data.token_lengths, data.max_length)
    return max(1, round(float(np.mean((cut[1:] + cut[:-1]) / 2))))
