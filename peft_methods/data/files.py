"""Files of a data source: Parquet, CSV and JSON-lines files, and saved `datasets` folders."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.data.raw import ClassNames
from peft_methods.utils.errors import DataError, first_line

if TYPE_CHECKING:
    from pandas import DataFrame


SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
SHARD = re.compile(r"-\d{5}-of-\d{5}$")  # how the hub names the parts of a split


def read_folder(path: Path) -> tuple[dict[str, DataFrame], ClassNames]:
    """Read a folder of files, or a saved data set: frames by split, and class names by column."""
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        return read_saved(path)
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


def read_saved(path: Path) -> tuple[dict[str, DataFrame], ClassNames]:
    """Read a data set that `save_to_disk` wrote. Raises `DataError`."""
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{path} is not a complete saved data set: {first_line(error)}") from None
    return named_frames(saved if isinstance(saved, DatasetDict) else {"train": saved})


def named_frames(saved: Any) -> tuple[dict[str, DataFrame], ClassNames]:
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
