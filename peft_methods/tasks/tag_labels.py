"""Columns of words and tags to labels: lists of strings, or of ids with declared names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft_methods.data.columns import UNPAIRED_SURROGATE, column_of_role
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.raw import RawData, RawTable, find_column
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.column_kinds import (
    are_lists_of_labels,
    are_lists_of_words,
    column_among,
    is_list,
    values_of,
)
from peft_methods.tasks.tag_schemes import OUTSIDE
from peft_methods.utils.errors import DataError, nearest

WORD_COLUMNS = ("tokens", "words", "token", "word", "text", "sentence")
TAG_COLUMNS = ("ner_tags", "tags", "ner", "labels", "label", "tag", "entities", "chunk_tags")
IGNORED = -100  # the label of tokens that the loss ignores in PyTorch
FORMS = (
    "JSON lines, Parquet and saved datasets hold lists; a CoNLL file has a word and its tag a line"
)

Words = tuple[str, ...]


@dataclass(frozen=True)
class TaggedWords:
    """The words of each sentence and their tags as strings, for one split."""

    words: list[Words]
    tags: list[list[str]]


def tagged_columns(raw: RawData, spec: DataSpec) -> str:
    """Return why the columns can only be of words and tags; empty if they need not be."""
    words, tags = (
        column_among(raw.first, named, known)
        for named, known in ((spec.text, WORD_COLUMNS), (spec.label, TAG_COLUMNS))
    )
    texts, labels = values_of(raw.first, words), values_of(raw.first, tags)
    are_lists = are_lists_of_words(texts) and are_lists_of_labels(labels)
    alike = [
        is_list(one) and is_list(other) and len(one) == len(other)
        for one, other in zip(texts, labels, strict=False)
    ]
    if are_lists and 2 * sum(alike) > len(alike):
        return f"{words!r} holds lists of words and {tags!r} as many tags"
    return ""


def read_tagged(raw: RawData, spec: DataSpec) -> dict[str, TaggedWords]:
    """Return words and tags by split. Raises `DataError` that names the row."""
    columns = raw.first.columns
    words = column_of_role(spec.text, "text", WORD_COLUMNS, columns, spec)
    tags = column_of_role(spec.label, "label", TAG_COLUMNS, columns, spec)
    for split, table in raw.tables.items():
        for needed in (words, tags):
            if find_column(needed, table.columns) is None:
                raise DataError(
                    f"{spec.source}: column {needed!r} of train is missing in {split}, which has "
                    f"{', '.join(table.columns)}."
                )
    names = raw.class_names.get(tags)
    return {
        split: _read_split(table, words, tags, names, f"{split} of {spec.source}")
        for split, table in raw.tables.items()
    }


def _read_split(
    table: RawTable, words: str, tags: str, names: tuple[str, ...] | None, where: str
) -> TaggedWords:
    lists = {name: _lists(table.values(name), name, where) for name in (words, tags)}
    pairs = list(zip(lists[words], lists[tags], strict=True))
    unlike = [row for row, (one, other) in enumerate(pairs) if len(one) != len(other)]
    if unlike:
        one, other = pairs[unlike[0]]
        raise DataError(
            f"{len(unlike)} of {len(pairs)} rows in {where} have unlike numbers of words and tags "
            f"(the first is row {unlike[0]}: {len(one)} {words!r} and {len(other)} {tags!r}). Give "
            f"every word one tag."
        )
    for row, one in enumerate(lists[words]):
        _check_words(one, f"{words!r} in row {row} of {where}")
    empty = [row for row, one in enumerate(lists[words]) if not any(map(str.strip, one))]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(pairs)} rows in {where} have no words (the first is row "
            f"{empty[0]}). Remove them."
        )
    found = [
        _tags(one, names, f"{tags!r} in row {row} of {where}")
        for row, one in enumerate(lists[tags])
    ]
    return TaggedWords([tuple(one) for one in lists[words]], found)


def _lists(values: list[Any], column: str, where: str) -> list[list[Any]]:
    """Return the values of a column as lists. Parquet's lists are arrays."""
    result = []
    for row, value in enumerate(values):
        listed = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(listed, list | tuple):
            raise DataError(
                f"{column!r} in row {row} of {where} is {_shown(listed)}, not a list with one "
                f"entry for each word. {FORMS}."
            )
        result.append(list(listed))
    return result


def _check_words(words: Sequence[Any], where: str) -> None:
    for place, word in enumerate(words):
        if not isinstance(word, str) or UNPAIRED_SURROGATE.search(word):
            raise DataError(f"word {place} of {where} is {_shown(word)}, not a text.")


def _tags(tags: Sequence[Any], names: tuple[str, ...] | None, where: str) -> list[str]:
    """Return the tags of a sentence as strings."""
    return [_tag(tag, names, f"tag {place} of {where}") for place, tag in enumerate(tags)]


def _tag(tag: Any, names: tuple[str, ...] | None, where: str) -> str:
    if isinstance(tag, str) and tag.strip():
        return tag.strip()
    if isinstance(tag, bool) or not isinstance(tag, int):
        raise DataError(
            f"{where} is {_shown(tag)}. A tag should be a text such as 'B-PER', or a whole number "
            f"whose name the data set declares."
        )
    if tag == IGNORED:
        raise DataError(
            f"{where} is {IGNORED}, which marks tokens without a label. Give words and tags from "
            f"before the tokenization."
        )
    if names is None:
        raise DataError(
            f"{where} is the number {tag}, and the data set declares no names for the tags, so "
            f"entities cannot be told from it. Write tags as texts such as 'B-PER', or save the "
            f"data set with its ClassLabel feature.",
            setting="data.label",
        )
    if not 0 <= tag < len(names):
        raise DataError(
            f"{where} is {tag}, but the data set declares {len(names)} tags (0 to "
            f"{len(names) - 1})."
        )
    return names[tag]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def label_names_of(types: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of these types: O, then B- and I- of each.

    Label 0 is O, label 2k - 1 begins an entity of the k-th type and 2k continues it.
    """
    return (OUTSIDE, *(f"{prefix}-{one}" for one in types for prefix in "BI"))


def types_of(tags: Sequence[Sequence[str]]) -> Counter[str]:
    """Count the entities of each type in sentences tagged in BIO."""
    return Counter(tag[2:] for sentence in tags for tag in sentence if tag.startswith("B-"))


def check_known(
    types: dict[str, Counter[str]], known: Sequence[str], spec: DataSpec, train: str
) -> None:
    """Raise `DataError` if a split has entities of a type that train lacks."""
    for split, counts in types.items():
        unknown = sorted(set(counts) - set(known))
        if unknown:
            raise DataError(
                f"{spec.source}: entities of type {unknown[0]!r} in {split} ({counts[unknown[0]]}) "
                f"do not occur in {train} ({', '.join(known)}), so no method could find them."
                f"{nearest(unknown[0], known)} Remove these rows, or give the entities a type of "
                f"train."
            )


def labelled(
    tagged: TaggedWords, tags: Sequence[list[str]], names: tuple[str, ...]
) -> LabelledTexts:
    """Return rows whose label is the tuple of their tags' numbers, one for each word."""
    number = {name: label for label, name in enumerate(names)}
    return LabelledTexts(
        [" ".join(words) for words in tagged.words],
        [tuple(number[tag] for tag in sentence) for sentence in tags],
        words=tagged.words,
    )
