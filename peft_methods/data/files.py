"""Folders and files of a data source: which file is which split."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.data.raw import ClassNames
from peft_methods.data.readers import FORMATS, name_and_format, read_table
from peft_methods.utils.errors import DataError, first_line

if TYPE_CHECKING:
    from pandas import DataFrame


SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
SHARD = re.compile(r"-\d{5}-of-\d{5}$")  # how the hub names the parts of a split


def read_path(path: Path) -> tuple[dict[str, DataFrame], ClassNames]:
    """Read a file, a folder of files, or a saved data set.

    Returns frames by split, and class names by column. A single file whose name is no split is
    `train`, alone or in its folder.
    """
    if path.is_dir() and (
        (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file()
    ):
        return read_saved(path)
    files = _files_of(path)
    frames: dict[str, DataFrame] = {}
    names: ClassNames = {}
    for split, parts in files.items():
        frames[split], declared = _read_parts(parts)
        names = {**declared, **names}
    return frames, names


def _files_of(path: Path) -> dict[str, list[Path]]:
    if not path.is_dir():
        if not name_and_format(path)[1]:
            raise DataError(
                f"{path} is a file of an unknown format. Give a file in one of the formats "
                f"{', '.join(FORMATS)}, or a folder of such files.",
                setting="data.source",
            )
        return {"train": [path]}
    return _split_files(path) or _files_below(path) or _only_file(path)


def _data_files(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_file() and name_and_format(f)[1])


def _split_files(path: Path) -> dict[str, list[Path]]:
    """Return the files of each split in this folder: one, or its shards as the hub names them."""
    found = {}
    for split, spellings in SPLIT_NAMES.items():
        stems = {file: name_and_format(file)[0] for file in _data_files(path)}
        files = [file for file, stem in stems.items() if SHARD.sub("", stem) in spellings]
        if len(files) > 1 and not all(SHARD.search(stems[file]) for file in files):
            raise DataError(
                f"{path}: more than one file for {split}: {', '.join(f.name for f in files)}. "
                f"Keep one."
            )
        if files:
            found[split] = files
    return found


def _only_file(path: Path) -> dict[str, list[Path]]:
    """Return the only data file of a folder as train. JSON files beside others are no data."""
    files = _data_files(path)
    files = [file for file in files if name_and_format(file)[1] != "json"] or files
    if len(files) > 1:
        raise DataError(
            f"{path}: none of {', '.join(file.name for file in files)} is named after a split. "
            f"Name them train, validation and test, or give one of them as data.source.",
            setting="data.source",
        )
    return {"train": files} if files else {}


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


def _read_parts(files: list[Path]) -> tuple[DataFrame, ClassNames]:
    import pandas as pd

    parts = [read_table(file) for file in files]
    return pd.concat([part.frame for part in parts], ignore_index=True), parts[0].class_names


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
                entries = getattr(feature, "feature", feature)  # of a list: that of its entries
                if declared := getattr(entries, "names", None):
                    names[column] = tuple(declared)
    return frames, names
