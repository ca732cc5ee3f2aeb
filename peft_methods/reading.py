"""The user's data source to rows.

A source is a folder of Parquet, CSV or JSON-lines files, a saved `datasets` folder, or a hub id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.classes import check_texts, number_labels, parse_labels
from peft_methods.errors import DataError, first_line, nearest
from peft_methods.recipe import DataSpec, is_only_a_path, path_of

if TYPE_CHECKING:
    from pandas import DataFrame

SHARD = re.compile(r"-\d{5}-of-\d{5}$")  # how the hub names the parts of a split
SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
TEXT_COLUMNS = ("text", "sentence", "content", "review", "question", "document", "tweet")
PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "coarse_label", "sentiment")


ClassNames = dict[str, tuple[str, ...]]  # by column


@dataclass(frozen=True)
class Table:
    """The rows of one split: texts, labels 0..n-1, and second texts for tasks on text pairs."""

    texts: list[str]
    labels: list[int]
    pairs: list[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> Table:
        """Return these rows, in this order."""
        rows = list(rows)
        pairs = None if self.pairs is None else [self.pairs[row] for row in rows]
        return Table([self.texts[row] for row in rows], [self.labels[row] for row in rows], pairs)

    def row_keys(self) -> list[str]:
        """Return what identifies each row: its text, or both of its texts."""
        if self.pairs is None:
            return self.texts
        return [f"{a}\x1f{b}" for a, b in zip(self.texts, self.pairs, strict=True)]

    def drop_duplicates(self, key: Callable[[str], str]) -> Table:
        """Return the first row of each distinct text."""
        first: dict[str, int] = {}
        for row, text in enumerate(self.row_keys()):
            first.setdefault(key(text), row)
        return self.take(first.values())

    def drop_texts_of(self, other: Table, key: Callable[[str], str]) -> tuple[Table, int]:
        """Return the rows whose text is not in `other`, and the number of removed rows."""
        held = {key(text) for text in other.row_keys()}
        kept = self.take(row for row, text in enumerate(self.row_keys()) if key(text) not in held)
        return kept, len(self) - len(kept)


def read_source(spec: DataSpec) -> tuple[dict[str, Table], tuple[str, ...]]:
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
    frames, names = _read_hub(spec) if path is None else _read_folder(path)
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


def _read_folder(path: Path) -> tuple[dict[str, DataFrame], ClassNames]:
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        return _read_saved(path)
    files = _split_files(path) or _files_below(path)
    return {split: _read_parts(parts) for split, parts in files.items()}, {}


def _split_files(path: Path) -> dict[str, list[Path]]:
    """Return the files of each split in this folder: one, or its shards as the hub names them."""
    found = {}
    for split, spellings in SPLIT_NAMES.items():
        files = sorted(
            f
            for f in path.iterdir()
            if f.is_file() and f.suffix in READERS and SHARD.sub("", f.stem).lower() in spellings
        )
        if len(files) > 1 and not all(SHARD.search(f.stem) for f in files):
            raise DataError(
                f"{path}: more than one file for {split}: {', '.join(f.name for f in files)}. "
                f"Keep one."
            )
        if files:
            found[split] = files
    return found


def _files_below(path: Path) -> dict[str, list[Path]]:
    """Return the split files of the only subfolder that has any.

    A copy of a hub repository keeps its files in a subfolder such as `data`.
    """
    below = {
        folder: files
        for folder in sorted(f for f in path.iterdir() if f.is_dir())
        if (files := _split_files(folder))
    }
    if len(below) > 1:
        names = ", ".join(folder.name for folder in below)
        raise DataError(
            f"{path} holds more than one data set: {names}. Give one of them: "
            f'data.source = "{next(iter(below))}".',
            setting="data.source",
        )
    return next(iter(below.values()), {})


def _read_parts(files: list[Path]) -> DataFrame:
    import pandas as pd

    return pd.concat([_read_file(file) for file in files], ignore_index=True)


def _read_file(file: Path) -> DataFrame:
    try:
        frame = READERS[file.suffix](file)
        frame.columns = frame.columns.map(str)
        if not frame.columns.is_unique:
            raise ValueError("two columns have the same name")
        return frame
    except Exception as error:  # each format has its own errors; all mean a file of another format
        raise DataError(
            f"{file} cannot be read as {file.suffix.lstrip('.')}: {first_line(error)}"
        ) from None


def _read_csv(file: Path, separator: str = ",") -> DataFrame:
    import pandas as pd

    header = pd.read_csv(
        file, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False
    ).iloc[0]
    if header.duplicated().any():
        raise ValueError(f"two columns are called {header[header.duplicated()].iloc[0]!r}")
    # "NA" and "null" are words, not missing values
    return pd.read_csv(file, sep=separator, keep_default_na=False)


def _read_jsonl(file: Path) -> DataFrame:
    import pandas as pd

    # splitlines() would also split at U+2028 within a text
    lines = file.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("each line should be a JSON object with the columns as keys")
    return pd.DataFrame(rows)  # keeps values as written; pandas' own reader guesses types


def _read_parquet(file: Path) -> DataFrame:
    import pandas as pd

    # invalid texts raise during the conversion, so that the error names the file
    return pd.read_parquet(file).astype(object)


READERS: dict[str, Callable[[Path], Any]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": lambda file: _read_csv(file, "\t"),
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
}


def _read_saved(path: Path) -> tuple[dict[str, DataFrame], ClassNames]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{path} is not a complete saved data set: {first_line(error)}") from None
    return _frames(saved if isinstance(saved, DatasetDict) else {"train": saved})


def _read_hub(spec: DataSpec) -> tuple[dict[str, DataFrame], ClassNames]:
    from datasets import load_dataset

    try:
        return _frames(load_dataset(spec.source, spec.config, revision=spec.revision))
    except Exception as error:
        raise DataError(
            f"{spec.source!r} is not a local folder and could not be loaded from the hub "
            f"({first_line(error)}). Check the name and the network, or set data.source to a local "
            f"folder.",
            setting="data.source",
        ) from None


def _frames(saved: Any) -> tuple[dict[str, DataFrame], ClassNames]:
    """Return pandas frames by split, and the class names of the columns that declare them."""
    frames: dict[str, DataFrame] = {}
    names: ClassNames = {}
    for split, spellings in SPLIT_NAMES.items():
        found = next((name for name in saved if name.lower() in spellings), None)
        if found is not None:
            frames[split] = saved[found].to_pandas()
            for column, feature in saved[found].features.items():
                if declared := getattr(feature, "names", None):
                    names[column] = tuple(declared)
    return frames, names


def _to_tables(
    frames: dict[str, DataFrame], names: ClassNames, spec: DataSpec
) -> tuple[dict[str, Table], tuple[str, ...]]:
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
        tables[split] = Table(texts, numbers[split], pairs)
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
