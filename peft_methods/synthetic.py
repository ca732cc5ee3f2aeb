"""A recipe's texts; or rows of random tokens in their place, where only the cost is asked for and no text can be read."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from peft_methods import configs, data, embedded, shapes
from peft_methods.errors import DataError
from peft_methods.reading import Table
from peft_methods.recipe import DataSpec, Recipe, is_meant_as_path, path_of


def load(recipe: Recipe) -> data.TextData:
    """The rows a recipe asks for, read where weights or tokenizer and data are there, else drawn. Raises `DataError`."""
    if recipe.model.weights == "pretrained" or (
        configs.has_tokenizer(recipe.model) and _is_here(recipe.data.source)
    ):
        return data.load(recipe.data)
    config = configs.load_config(recipe.model)
    return draw(recipe.data, config.vocab_size, configs.padding_of(config))


def _is_here(source: str) -> bool:
    """Whether the data can be had without the hub. What can only be meant as a path counts, so that a slip in it is told."""
    return (
        source.startswith(embedded.PREFIX)
        or is_meant_as_path(source)
        or path_of(source) is not None
    )


def draw(spec: DataSpec, vocabulary: int, padding: int) -> data.TextData:
    """Rows of random token ids (any but the padding), written as numbers, with random labels of equal shares."""
    names = tuple(f"class {number}" for number in range(spec.classes or 2))
    splits = {split: _table(spec, split, len(names), vocabulary, padding) for split in data.SPLITS}
    counts = {
        name: tuple(np.bincount(table.labels, minlength=len(names)).tolist())
        for name, table in splits.items()
    }
    facts = data.DataFacts(
        spec.source, names, counts, f"random-{data.fingerprint(splits)}", random=True
    )
    return data.TextData(splits, facts, shapes.number_tokenizer(vocabulary, padding))


def _table(spec: DataSpec, split: str, classes: int, vocabulary: int, padding: int) -> Table:
    rows = getattr(spec, split)
    if rows == "all":
        raise DataError(
            f"data.{split} = 'all' needs the texts, and with these random weights those of {spec.source!r} are not read. "
            f"Give a number: --peft-set data.{split}=N."
        )
    rng = _generator(spec, split)
    labels = rng.permutation(np.arange(rows) % classes).tolist()
    longest = spec.max_length + 1  # what is cut off need not be drawn, only seen to be there
    texts = [
        _text(rng.integers(0, vocabulary - 1, min(length, longest)), padding)
        for length in _lengths(spec, rows, rng)
    ]
    return Table(texts, labels)


def _generator(spec: DataSpec, split: str) -> np.random.Generator:
    """Each split and source has rows of its own; the recipe's data seed decides them all."""
    place = hashlib.sha256(f"{spec.source}/{split}".encode()).digest()
    return np.random.default_rng([spec.seed, int.from_bytes(place[:8])])


def _lengths(spec: DataSpec, rows: int, rng: np.random.Generator) -> list[int]:
    """Token counts of the rows: spread evenly over the recipe's quantiles, or all the most there can be.

    Between two quantiles the counts rise linearly. Even spread keeps a small split's mean at that of the quantiles.
    """
    if spec.token_lengths is None:
        return [spec.max_length] * rows
    ranks = (rng.permutation(rows) + rng.random(rows)) / max(1, rows)
    steps = np.linspace(0, 1, len(spec.token_lengths))
    return np.interp(ranks, steps, spec.token_lengths).round().astype(int).tolist()


def _text(drawn: NDArray[np.int64], padding: int) -> str:
    """The ids as words; those from the padding's up are one higher, so that it never occurs."""
    return " ".join(map(str, drawn + (drawn >= padding)))
