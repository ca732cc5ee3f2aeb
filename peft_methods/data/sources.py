"""The user's data source to rows.

A source is a folder of Parquet, CSV or JSON-lines files, a saved `datasets` folder, or a hub id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peft_methods.data.files import ClassNames, named_frames, read_folder
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.labels import check_texts, number_labels, parse_labels
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.errors import DataError, first_line, nearest
from peft_methods.utils.files import is_only_a_path, path_of

if TYPE_CHECKING:
    from pandas import DataFrame

TEXT_COLUMNS = ("text", "sentence", "content", "review", "question", "document", "tweet")
PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "coarse_label", "sentiment")


def read_source(spec: DataSpec) -> tuple[dict[str, LabelledTexts], tuple[str, ...]]:
    """Return the splits a recipe needs, by role, and the label names. Raises `DataError`.

    Splits without a role are ignored: GLUE's test sets have no labels.
    """
    path = path_of(spec.source)
    if path is not None and not path.is_dir():
        raise DataError(
            f"{spec.source} is a file; give the folder that holds train.* and test.* files.",
            setting="data.source",
        )
    if path is None and is_only_a_path(spec.source):
        raise DataError(
            f"there is no folder {spec.source}. Set data.source to one that holds train.* and "
            f"test.* files.",
            setting="data.source",
        )
    frames, names = _read_hub(spec) if path is None else read_folder(path)
    return _to_tables(_by_role(frames, spec), names, spec)


def _by_role(frames: dict[str, DataFrame], spec: DataSpec) -> dict[str, DataFrame]:
    """Return the frames for train, validation and test.

    A role without a frame is cut from train later.
    """
    found = ", ".join(frames) or "nothing"
    if "train" not in frames:
        raise DataError(
            f"{spec.source}: no train split; found: {found}. "
            f"Name a file train.parquet, train.csv or train.jsonl."
        )
    test = spec.test_split if spec.test_split in frames else "test"
    if spec.test and test not in frames:
        named = "" if spec.test_split == "test" else f"{spec.test_split} (data.test_split) or "
        other = "validation" if "validation" in frames else "train"
        raise DataError(
            f"{spec.source}: no {named}test split; found: {found}. Name a file test.parquet, "
            f"test.csv or test.jsonl, or take test from another split: "
            f'data.test_split = "{other}".',
            setting="data.test_split",
        )
    roles = {"train": frames["train"]}
    if "validation" in frames and not (spec.test and test == "validation"):
        roles["validation"] = frames["validation"]
    if spec.test and test != "train":
        roles["test"] = frames[test]
    return roles


def _read_hub(spec: DataSpec) -> tuple[dict[str, DataFrame], ClassNames]:
    from datasets import load_dataset

    try:
        return named_frames(load_dataset(spec.source, spec.config, revision=spec.revision))
    except Exception as error:
        raise DataError(
            f"{spec.source!r} is not a local folder and could not be loaded from the hub "
            f"({first_line(error)}). Check the name and the network, or set data.source to a local "
            f"folder.",
            setting="data.source",
        ) from None


def _to_tables(
    frames: dict[str, DataFrame], names: ClassNames, spec: DataSpec
) -> tuple[dict[str, LabelledTexts], tuple[str, ...]]:
    columns = list(frames["train"].columns)
    text, pair = _text_columns(columns, frames["train"], spec)
    label = _column(spec.label, "label", LABEL_COLUMNS, columns, spec)
    for split, frame in frames.items():
        missing = [c for c in (text, pair, label) if c is not None and c not in frame.columns]
        if missing:
            raise DataError(
                f"{spec.source}: column {missing[0]!r} of train is missing in {split}, "
                f"which has {', '.join(frame.columns)}."
            )
    raw = {
        split: parse_labels(frame[label].tolist(), label, split, spec)
        for split, frame in frames.items()
    }
    label_names, numbers = number_labels(raw, names.get(label), spec)
    tables = {}
    for split, frame in frames.items():
        texts = check_texts(frame[text].tolist(), text, split, spec)
        pairs = None if pair is None else check_texts(frame[pair].tolist(), pair, split, spec)
        tables[split] = LabelledTexts(texts, numbers[split], pairs)
    return tables, label_names


def _text_columns(columns: list[str], frame: DataFrame, spec: DataSpec) -> tuple[str, str | None]:
    if spec.text is None and spec.text_pair is None:
        for first, second in PAIR_COLUMNS:
            if first in columns and second in columns:
                return first, second
    strings = [
        c
        for c in columns
        if c not in LABEL_COLUMNS and frame[c].map(lambda value: isinstance(value, str)).all()
    ]
    known = TEXT_COLUMNS if len(strings) != 1 else (*TEXT_COLUMNS, strings[0])
    text = _column(spec.text, "text", known, columns, spec)
    return text, None if spec.text_pair is None else _column(
        spec.text_pair, "text_pair", (), columns, spec
    )


def _column(
    named: str | None, role: str, known: Sequence[str], columns: list[str], spec: DataSpec
) -> str:
    """Return the column of a role: the one named in the recipe, or the first known name found."""
    if named is not None and named not in columns:
        raise DataError(
            f"{spec.source}: no column {named!r}.{nearest(named, columns)} "
            f"Columns: {', '.join(columns)}.",
            setting=f"data.{role}",
        )
    found = named or next((name for name in known if name in columns), None)
    if found is None:
        raise DataError(
            f"{spec.source}: no {role} column among {', '.join(columns)}. Set data.{role} to the "
            f"name of the column.",
            setting=f"data.{role}",
        )
    return found
