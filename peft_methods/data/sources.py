"""The user's data source to raw columns by split.

A source is a file (Parquet, CSV, TSV, JSON, JSON lines, CoNLL), a folder of such files, a saved
`datasets` folder, or a hub id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peft_methods.data.files import named_frames, read_path
from peft_methods.data.raw import ClassNames, RawData, RawTable
from peft_methods.data.readers import FORMATS
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.errors import DataError, first_line
from peft_methods.utils.files import is_only_a_path, path_of

if TYPE_CHECKING:
    from pandas import DataFrame


def read_source(spec: DataSpec) -> RawData:
    """Return the splits a recipe needs, by role. Raises `DataError`.

    Splits without a role are ignored: GLUE's test sets have no labels.
    """
    path = path_of(spec.source)
    if path is None and is_only_a_path(spec.source):
        raise DataError(
            f"there is no folder {spec.source}. Set data.source to one that holds train.* and "
            f"test.* files, or to a file.",
            setting="data.source",
        )
    frames, names = _read_hub(spec) if path is None else read_path(path)
    if spec.test_source is not None:
        frames = {**frames, "test": _test_rows_of(spec)}
    tables = {role: RawTable(frame) for role, frame in _by_role(frames, spec).items()}
    return RawData(tables, names)


def _by_role(frames: dict[str, DataFrame], spec: DataSpec) -> dict[str, DataFrame]:
    """Return the frames for train, validation and test.

    A role without a frame is cut from train later. Only a recipe with exact sizes needs a test
    split: otherwise test is cut from train too.
    """
    found = ", ".join(frames) or "nothing"
    if "train" not in frames:
        raise DataError(
            f"{spec.source}: no train split; found: {found}.{_unread_files(spec)} "
            f"Name a file train.parquet, train.csv or train.jsonl."
        )
    test = spec.test_split if spec.test_split in frames else "test"
    if spec.test and test not in frames and spec.sizes == "exact":
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
    if spec.test and test != "train" and test in frames:
        roles["test"] = frames[test]
    return roles


def error_of(error: DataError, setting: str) -> str:
    """Return the message of a source's error, with the setting that names this source."""
    return f"{setting}: {str(error).replace('data.source', setting)}"


def _unread_files(spec: DataSpec) -> str:
    """Name a file of a split whose format is unknown, for an error; '' without any."""
    folder = path_of(spec.source)
    names = sorted(one.name for one in folder.iterdir()) if folder and folder.is_dir() else []
    unread = [one for one in names if one.lower().startswith("train") and "." in one]
    if not unread:
        return ""
    return f" The format of {unread[0]!r} is unknown. Allowed: {', '.join(FORMATS)}."


def _test_rows_of(spec: DataSpec) -> DataFrame:
    """Return the test rows of another source. Raises `DataError` if it has none."""
    assert spec.test_source is not None, "the caller has looked"
    own = replace(
        spec, source=spec.test_source, config=spec.test_config, revision=None, test_source=None
    )
    path = path_of(own.source)
    try:
        frames, _ = _read_hub(own) if path is None else read_path(path)
    except DataError as error:
        text = error_of(error, "data.test_source")
        raise DataError(text, setting="data.test_source") from None
    if "test" not in frames:
        raise DataError(
            f"data.test_source = {own.source!r} has no test split; found: {', '.join(frames)}. "
            f"Name a file test.parquet, test.csv or test.jsonl, or set another source.",
            setting="data.test_source",
        )
    return frames["test"]


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
