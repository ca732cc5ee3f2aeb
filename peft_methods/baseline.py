"""Stored baselines: pytest-benchmark JSON with our figures in `extra_info`; where they lie, read with care, written atomically."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from peft_methods.building import adapter
from peft_methods.errors import OptionError
from peft_methods.recipe import Recipe
from peft_methods.records import SCHEMA_VERSION
from peft_methods.store import StoreError, atomically

AUTO = "auto"


@dataclass(frozen=True)
class Entry:
    """One method of one recipe: for each metric a value a seed (None or nan where it is missing), and what was run where."""

    __pydantic_config__ = ConfigDict(extra="ignore")
    recipe: str
    method: str
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    metrics: dict[str, tuple[float | None, ...]]
    spec: dict[str, Any]
    data: dict[str, Any]
    environment: dict[str, Any]

    def values(self, metric: str) -> list[float]:
        """The seeds' values that are there."""
        return present(self.metrics.get(metric, ()))


def present(values: Iterable[float | None]) -> list[float]:
    """What is neither None nor nan."""
    return [value for value in values if value is not None and not math.isnan(value)]


@dataclass(frozen=True)
class Baseline:
    """A file of entries by recipe and method, with the date (ISO) and commit at which they were measured.

    `changed`: that the code was not the commit's as it stands.
    """

    path: Path
    date: str
    commit: str
    entries: dict[tuple[str, str], Entry]
    changed: bool = False

    def __str__(self) -> str:
        return f"{self.path} of {self.date[:10]}, commit {self.commit[:10]}{' with changes' * self.changed}"

    def methods(self, recipe: str) -> list[str]:
        """The methods that it has of a recipe."""
        return [method for of, method in self.entries if of == recipe]


def slug(name: str) -> str:
    """'NVIDIA H100 80GB HBM3' -> 'nvidia-h100-80gb-hbm3'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def auto_path(recipe_file: Path, recipe: Recipe, device: str) -> Path:
    """Where the baseline of a recipe on a device lies: `baselines/DEVICE/RECIPE.json` beside the folder of the recipe's file.

    Runs with random weights have files of their own, `RECIPE-random-weights.json`: they have no quality to hold others to.
    """
    name = recipe.name if recipe.has_quality else f"{recipe.name}-random-weights"
    return recipe_file.absolute().parent.parent / "baselines" / slug(device) / f"{name}.json"


def read_baseline(path: Path) -> Baseline:
    """A baseline from any pytest-benchmark JSON that holds our figures. Raises `OptionError` with one line that says what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OptionError(
            f"--peft-baseline: there is no file {path}; write it with --peft-save-baseline {path}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise OptionError(f"--peft-baseline {path} cannot be read: {reason}.") from None
    return _checked(path, text)


def _checked(path: Path, text: str) -> Baseline:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = (
            "is empty" if not text.strip() else f"is not valid JSON ({str(error).splitlines()[0]})"
        )
        raise OptionError(
            f"--peft-baseline {path} {what}; write it anew with --peft-save-baseline {path}."
        ) from None
    benchmarks = values.get("benchmarks") if isinstance(values, dict) else None
    if not isinstance(benchmarks, list):
        raise OptionError(
            f"--peft-baseline {path} is no pytest-benchmark JSON: it has no list of benchmarks."
        )
    infos = [
        info
        for one in benchmarks
        if isinstance(one, dict)
        and isinstance(info := one.get("extra_info"), dict)
        and "recipe" in info
    ]
    if not infos:
        raise OptionError(
            f"--peft-baseline {path} holds no fine-tuning figures ({len(benchmarks)} benchmarks of other kinds); "
            f"write it with --peft-save-baseline {path}."
        )
    commit = values.get("commit_info") if isinstance(values.get("commit_info"), dict) else {}
    return Baseline(
        path,
        str(values.get("datetime") or "an unknown date"),
        str(commit.get("id") or "unknown"),
        _entries(path, infos),
        changed=commit.get("dirty") is True,
    )


def _entries(path: Path, infos: Iterable[dict[str, Any]]) -> dict[tuple[str, str], Entry]:
    entries: dict[tuple[str, str], Entry] = {}
    for info in infos:
        version = info.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise OptionError(
                f"--peft-baseline {path} has schema version {version}, newer than {SCHEMA_VERSION}; update peft-methods to read it."
            )
        try:
            entry = adapter(Entry).validate_python(info)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            name = f"{info['recipe']}-{info.get('method')}"
            raise OptionError(
                f"--peft-baseline {path}: the figures of {name} are spoilt at {where}: {first['msg']}."
            ) from None
        if (entry.recipe, entry.method) in entries:
            raise OptionError(
                f"--peft-baseline {path} has two entries of {entry.recipe}-{entry.method}; leave one of them."
            )
        entries[entry.recipe, entry.method] = entry
    return entries


def write_baseline(path: Path, document: dict[str, Any]) -> None:
    """Write a pytest-benchmark JSON in one step: a reader sees the old file or the new one. Raises `StoreError`."""
    from pytest_benchmark.utils import safe_dumps

    slim = [
        {**one, "params": {"finetune_task": one.get("param")}} for one in document["benchmarks"]
    ]  # the whole recipe's repr otherwise
    text: str = safe_dumps({**document, "benchmarks": slim}, indent=1, ensure_ascii=True) + "\n"  # type: ignore[no-untyped-call]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from None
