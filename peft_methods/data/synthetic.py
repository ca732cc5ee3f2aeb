"""The texts of a recipe, or rows of random tokens in their place.

Random tokens are used if only the cost is measured and the texts cannot be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from peft_methods.data import selection, splits
from peft_methods.data.facts import SPLITS, DataFacts, TextData, fingerprint
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.labelling import Labelling
from peft_methods.models import presets
from peft_methods.models.config import has_tokenizer, load_config, padding_of
from peft_methods.models.families import family_of
from peft_methods.models.padding import embedding_rows
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import DataSpec, Recipe
from peft_methods.recipes.variation import ROWS
from peft_methods.utils.errors import DataError
from peft_methods.utils.files import is_only_a_path, path_of


def load(
    recipe: Recipe,
    task: Labelling,
    seeds: Mapping[str, int] = selection.FIXED,
    subset_seed: int = 0,
) -> TextData:
    """Load the rows of a recipe, or draw them. Raises `DataError`.

    They are read if the weights, or the tokenizer and the data, are available. `seeds` and
    `subset_seed`: see `splits.load`.
    """
    if recipe.model.weights == "pretrained" or (
        has_tokenizer(recipe.model) and _is_available_offline(recipe.data.source)
    ):
        return splits.load(recipe.data, task, seeds, subset_seed)
    if seeds:
        raise DataError(
            f"budget.vary = {list(recipe.budget.vary)} draws rows, but with these random weights "
            f"the texts of {recipe.data.source!r} are not read. Leave out "
            f"{' and '.join(map(repr, ROWS))}.",
            setting="budget.vary",
        )
    config = load_config(recipe.model, task.head)
    end = config.eos_token_id if family_of(config) == "encoder_decoder" else None
    return draw(recipe.data, task, embedding_rows(config), padding_of(config), end)


def _is_available_offline(source: str) -> bool:
    """Whether the data is available without the hub.

    A source that can only be a path counts as available, so that a typo in it is reported.
    """
    return source.startswith(PREFIX) or is_only_a_path(source) or path_of(source) is not None


def draw(
    spec: DataSpec, task: Labelling, vocabulary: int, padding: int, end: int | None = None
) -> TextData:
    """Draw rows of random token ids, written as numbers, with random labels.

    The padding id is never drawn. Where encoder-decoders need an end-of-sequence token, `end`,
    every row has one, as its last token.
    """
    reserved = {padding} if end is None else {padding, end}
    names = task.random_label_names(spec)
    drawn = {
        split: _table(spec, task, split, names=len(names), vocabulary=vocabulary, reserved=reserved)
        for split in SPLITS
    }
    if end is not None:
        drawn = {split: _with_end(table, spec, end) for split, table in drawn.items()}
    counts = splits.strata_counts(drawn, len(names), task)
    facts = DataFacts(spec.source, names, counts, f"random-{fingerprint(drawn)}", random=True)
    return TextData(drawn, facts, presets.number_tokenizer(vocabulary, padding))


def _table(
    spec: DataSpec, task: Labelling, split: str, *, names: int, vocabulary: int, reserved: set[int]
) -> LabelledTexts:
    rows = getattr(spec, split)
    if rows == "all":
        raise DataError(
            f"data.{split} = 'all' needs the texts, but with these random weights the texts of "
            f"{spec.source!r} are not read. Set data.{split} to a number of rows.",
            setting=f"data.{split}",
        )
    rng = _generator(spec, split)
    labels = task.random_labels(rng, rows, names)
    longest = spec.max_length + 1  # one token more shows that the row was truncated
    texts = [
        _text(rng.integers(0, vocabulary - len(reserved), min(length, longest)), reserved)
        for length in _lengths(spec, rows, rng)
    ]
    return task.random_rows(texts, labels)


def _generator(spec: DataSpec, split: str) -> np.random.Generator:
    """Return a random generator for one split of one source.

    The recipe's data seed decides all of them.
    """
    place = hashlib.sha256(f"{spec.source}/{split}".encode()).digest()
    return np.random.default_rng([spec.seed, int.from_bytes(place[:8])])


def _lengths(spec: DataSpec, rows: int, rng: np.random.Generator) -> list[int]:
    """Return the rows' token counts: spread over the recipe's quantiles, or all at the maximum.

    Between two quantiles the counts rise linearly. The even spread keeps the mean of a small split
    close to that of the quantiles.
    """
    if spec.token_lengths is None:
        return [spec.max_length] * rows
    ranks = (rng.permutation(rows) + rng.random(rows)) / max(1, rows)
    steps = np.linspace(0, 1, len(spec.token_lengths))
    return np.interp(ranks, steps, spec.token_lengths).round().astype(int).tolist()


def _text(drawn: NDArray[np.int64], reserved: set[int]) -> str:
    """Return the ids as words.

    Ids from a reserved id upwards are shifted by one, so that no reserved id ever occurs.
    """
    for one in sorted(reserved):
        drawn = drawn + (drawn >= one)
    return " ".join(map(str, drawn))


def _with_end(table: LabelledTexts, spec: DataSpec, end: int) -> LabelledTexts:
    """Make `end` the last token that is left of each row when it is cut."""
    texts = []
    for text in table.texts:
        words = text.split(" ")
        words[min(len(words), spec.max_length) - 1] = str(end)
        texts.append(" ".join(words))
    return LabelledTexts(texts, table.labels)
