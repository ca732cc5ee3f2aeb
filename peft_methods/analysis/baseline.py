"""Stored baselines: where they are, how they are read and validated, and how they are written.

A baseline is a pytest-benchmark JSON file with our metrics in `extra_info`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, InstanceOf, ValidationError

from peft_methods.recipes.loading import FOLDER as SHIPPED_RECIPES
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.migrations import migrate_baseline_entry
from peft_methods.runs.record import SCHEMA_VERSION
from peft_methods.runs.spec import RunSpec
from peft_methods.utils.dicts import flatten
from peft_methods.utils.errors import OptionError, first_line
from peft_methods.utils.hashing import content_hash
from peft_methods.utils.validation import adapter
from peft_methods.utils.words import counted

AUTO = "auto"
EARLIER = "earlier_sessions"  # of a file: [{datetime, commit_info, benchmarks}], oldest first
FOLDER = "benchmarks"  # of shipped recipes' baselines, in the working folder
LONGEST = 60  # characters of a source in a file's name


def _check_packages(environment: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(environment.get("packages") or {}, dict):
        raise ValueError("packages must map names to versions")
    return environment


@dataclass(frozen=True)
class Entry:
    """The baseline of one method of one recipe.

    `metrics` has one value per seed (None or nan where missing). `settings` are the run's, by
    dotted name, as `RunSpec.flat` returns them. `data` and `environment` describe the training data
    and the machine. `earlier` are the entries of earlier sessions of the same file.
    """

    __pydantic_config__ = ConfigDict(extra="ignore")
    recipe: str
    method: str
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    metrics: dict[str, tuple[float | None, ...]]
    settings: dict[str, str]
    data: dict[str, Any]
    environment: Annotated[dict[str, Any], AfterValidator(_check_packages)]
    earlier: tuple[InstanceOf[Entry], ...] = ()

    @property
    def sessions(self) -> tuple[Entry, ...]:
        """The entries of all sessions, the newest last."""
        return (*self.earlier, self)

    def values(self, metric: str) -> list[float]:
        """Return the metric's value of each seed, without missing ones."""
        return present(self.metrics.get(metric, ()))


def present(values: Iterable[float | None]) -> list[float]:
    """Return the values that are neither None nor nan."""
    return [value for value in values if value is not None and not math.isnan(value)]


@dataclass(frozen=True)
class Baseline:
    """A file of entries by recipe and method, with the date (ISO) and commit of their measurement.

    `changed`: the working tree had uncommitted changes.
    """

    path: Path
    date: str
    commit: str
    entries: dict[tuple[str, str], Entry]
    changed: bool = False

    def __str__(self) -> str:
        changes = " with changes" if self.changed else ""
        sessions = max((len(entry.sessions) for entry in self.entries.values()), default=1)
        more = f", {sessions} sessions" if sessions > 1 else ""
        return f"{self.path} of {self.date[:10]}, commit {self.commit[:10]}{changes}{more}"

    def methods(self, recipe: str) -> list[str]:
        """Return the names of a recipe's methods in this file."""
        return [method for of, method in self.entries if of == recipe]


def slug(name: str) -> str:
    """Turn a device's name into a folder name: 'Tesla T4' -> 'tesla-t4'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def auto_path(recipe_file: Path, recipe: Recipe, device: str) -> Path:
    """Return the default path of a recipe's baseline on a device.

    It is `baselines/DEVICE/RECIPE.json`, next to the folder of the recipe's file; for shipped
    recipes, in `benchmarks` of the working folder. Another model or data than the file's are part
    of the name: `RECIPE.data-SOURCE.json`. Runs with random weights have no quality to compare, so
    they use a separate file too, `RECIPE-random-weights.json`.
    """
    place = recipe_file.absolute().parent.parent
    if recipe_file.absolute().parent == SHIPPED_RECIPES:
        place = Path.cwd() / FOLDER
    name = recipe.name + "".join(_replaced(load_recipe(str(recipe_file.absolute())), recipe))
    name += "" if recipe.has_quality else "-random-weights"
    return place / "baselines" / slug(device) / f"{name}.json"


def _replaced(own: Recipe, recipe: Recipe) -> Iterator[str]:
    """Yield a part of a file's name for each source that is not the recipe's own."""
    pairs = {
        "model": (own.model.source, recipe.model.source),
        "data": (own.data.source, recipe.data.source),
    }
    for what, (before, now) in pairs.items():
        if now != before:
            name = slug(now)
            if len(name) > LONGEST:  # the start of a long path tells little
                name = f"{name[-LONGEST:].strip('-')}-{content_hash(now)[:8]}"
            yield f".{what}-{name}"


def read_baseline(path: Path, saving: str = "save_baseline") -> Baseline:
    """Read a baseline from any pytest-benchmark JSON with our metrics. Raises `OptionError`.

    `saving` is how a user has a baseline written, for the messages.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OptionError(
            f"baseline: the file {path} does not exist. Write it first ({saving}={path}).",
            setting="baseline",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise OptionError(
            f"baseline {path} cannot be read: {reason}.", setting="baseline"
        ) from None
    return _parse(path, text, saving)


def _parse(path: Path, text: str, saving: str) -> Baseline:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = (
            "is empty" if not text.strip() else f"is not valid JSON ({str(error).splitlines()[0]})"
        )
        raise OptionError(
            f"baseline {path} {problem}. Write it again ({saving}={path}).",
            setting="baseline",
        ) from None
    benchmarks = values.get("benchmarks") if isinstance(values, dict) else None
    if not isinstance(benchmarks, list):
        raise OptionError(
            f"baseline {path} is not a pytest-benchmark JSON: it has no list of benchmarks.",
            setting="baseline",
        )
    infos = _infos(benchmarks)
    if not infos:
        raise OptionError(
            f"baseline {path} has no fine-tuning results "
            f"({counted(len(benchmarks), 'benchmark')} of other kinds). "
            f"Write it again ({saving}={path}).",
            setting="baseline",
        )
    commit = values.get("commit_info") if isinstance(values.get("commit_info"), dict) else {}
    return Baseline(
        path,
        str(values.get("datetime") or "an unknown date"),
        str(commit.get("id") or "unknown"),
        _with_earlier(_entries(path, infos), _earlier(path, values)),
        changed=commit.get("dirty") is True,
    )


def _infos(benchmarks: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the `extra_info` of the benchmarks that have our metrics."""
    return [
        info
        for one in benchmarks
        if isinstance(one, dict)
        and isinstance(info := one.get("extra_info"), dict)
        and "recipe" in info
    ]


def _earlier(path: Path, values: dict[str, Any]) -> list[dict[tuple[str, str], Entry]]:
    """Return the entries of each earlier session, the oldest first. Raises `OptionError`."""
    sessions = values.get(EARLIER, [])
    if not isinstance(sessions, list) or not all(
        isinstance(one, dict) and isinstance(one.get("benchmarks"), list) for one in sessions
    ):
        raise OptionError(
            f"baseline {path} is invalid at {EARLIER}: it must be a list of sessions, each with "
            "its benchmarks.",
            setting="baseline",
        )
    return [read_entries(path, one["benchmarks"]) for one in sessions]


def _with_earlier(
    newest: dict[tuple[str, str], Entry], sessions: Iterable[dict[tuple[str, str], Entry]]
) -> dict[tuple[str, str], Entry]:
    """Join the entries of all sessions: each method's newest has its earlier ones."""
    found: dict[tuple[str, str], list[Entry]] = {key: [] for key in newest}
    for session in (*sessions, newest):
        for key, entry in session.items():
            found.setdefault(key, []).append(entry)
    return {key: replace(last, earlier=tuple(old)) for key, (*old, last) in found.items()}


def read_entries(path: Path, benchmarks: Iterable[Any]) -> dict[tuple[str, str], Entry]:
    """Return the entries of a document's benchmarks. Raises `OptionError`, naming `path`."""
    return _entries(path, _infos(benchmarks))


def _entries(path: Path, infos: Iterable[dict[str, Any]]) -> dict[tuple[str, str], Entry]:
    entries: dict[tuple[str, str], Entry] = {}
    for info in infos:
        version = info.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise OptionError(
                f"baseline {path} has schema version {version}, newer than {SCHEMA_VERSION}. "
                "Update peft-methods to read it.",
                setting="baseline",
            )
        entry = _entry(path, info)
        if entries.get((entry.recipe, entry.method), entry) != entry:  # several tests may agree
            raise OptionError(
                f"baseline {path} has two entries of {entry.recipe}-{entry.method}. Delete one.",
                setting="baseline",
            )
        entries[entry.recipe, entry.method] = entry
    return entries


def _entry(path: Path, info: dict[str, Any]) -> Entry:
    """Build an entry from `extra_info` of any schema version. Raises `OptionError`."""
    try:
        current = migrate_baseline_entry(info)
        return adapter(Entry).validate_python({**current, "settings": _settings(current["spec"])})
    except ValidationError as error:
        first = error.errors()[0]
        where, problem = ".".join(map(str, first["loc"])), first["msg"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        where, problem = "spec", first_line(error)
    raise OptionError(
        f"baseline {path}: the entry of {info['recipe']}-{info.get('method')} is invalid at "
        f"{where}: {problem}.",
        setting="baseline",
    )


def _settings(spec: dict[str, Any]) -> dict[str, str]:
    """Return a spec's settings by dotted name, with today's defaults for those it lacks.

    A method that is not installed, or has other settings today, keeps its settings as they are.
    """
    try:
        return RunSpec.from_json({**spec, "seed": 0}).flat()
    except OptionError:
        return flatten(spec)
