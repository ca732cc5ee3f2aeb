"""Group records of any number of sessions into sections in which only method and seed differ.

A table row is a mean over seeds, so its runs must agree in everything else: the recipe's settings,
engine, device, library versions, data, weights and the method's hyperparameters. Records that
differ in one of these go to different sections.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.margin import MARGIN
from peft_methods.analysis.spec_keys import method_key, recipe_key, run_key
from peft_methods.methods.registry import METHODS
from peft_methods.profiling.environment import FINGERPRINT_PACKAGES
from peft_methods.runs.record import Record
from peft_methods.tasks.base import Predictions
from peft_methods.utils.dicts import flatten

Settings = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One recipe's records that are comparable in one table, with their prerequisite runs.

    `number` counts a recipe's sections, oldest first, those without results last. `differences`
    lists how a later section differs from the first.
    """

    recipe: str
    number: int
    differences: tuple[str, ...]
    comparison: Comparison

    @property
    def has_results(self) -> bool:
        """Whether any of its runs finished with a result."""
        return any(
            record.status == "ok" and record.role == "main" for record in self.comparison.records
        )

    @property
    def name(self) -> str:
        """The recipe's name, numbered from its second section on."""
        return self.recipe if self.number == 1 else f"{self.recipe} ({self.number})"


def group_records(
    records: Iterable[Record],
    predictions: Mapping[str, Predictions] | None = None,
    silenced: tuple[str, ...] = (),
    margin: float = MARGIN,
) -> list[Section]:
    """Group records into sections, ordered by recipe and age, those without any result last.

    Of two records of the same run the finished one is kept, of two finished ones the newer.
    A prerequisite run is in every section with a run that needs it. Tuning trials are left out:
    their results are in the records of the runs that were tuned.
    """
    records = list(records)
    prerequisites = _by_spec(record for record in records if record.role == "prerequisite")
    found: dict[str, list[list[Record]]] = {}
    for group in _grouped(
        (record for record in records if record.role == "main"), _requested, surroundings
    ):
        for layer in _layers(group):
            found.setdefault(layer[0].recipe_name, []).append(layer)
    sections = []
    for recipe in sorted(found, key=lambda name: _place(found[name][0][0])):
        layers = found[recipe]
        first, *_ = ordered = sorted(
            layers,
            key=lambda layer: (not any(record.status == "ok" for record in layer), _age(layer)),
        )
        for number, layer in enumerate(ordered, 1):
            differences = tuple(_differences(first, layer)) if number > 1 else ()
            own = (*layer, *_prerequisites_of(layer, prerequisites))
            comparison = Comparison(own, (), predictions or {}, silenced, margin)
            sections.append(Section(recipe, number, differences, comparison))
    return sections


def _place(record: Record) -> tuple[str, int, str]:
    """Sort key: the recipe's name; of a learning curve, the largest size first."""
    recipe = record.spec.recipe
    return recipe.curve_of or recipe.name, -(recipe.data.train_subset or 0), recipe.name


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _age(records: Sequence[Record]) -> tuple[float, str]:
    """Sort key: the time at which the first of these records finished."""
    return min(record.finished for record in records), min(record.fingerprint for record in records)


def _requested(record: Record) -> Hashable:
    """Return the key of the requested settings except method and seed."""
    spec = record.spec
    return recipe_key(spec.recipe), spec.requested_engine, spec.device


def _settings(record: Record) -> Settings:
    """Return the requested settings except method and seed.

    A run that fell back to the trainer engine was requested with the cuda_graphs engine.
    """
    spec = record.spec
    return {
        "recipe": spec.recipe_settings(),
        "engine": spec.requested_engine,
        "device": spec.device,
    }


def surroundings(record: Record) -> Settings:
    """Return the device, library versions and data of a run; empty if it never started."""
    environment, packages = record.environment, record.environment.get("packages") or {}
    if not environment:
        return {}
    known = {"device": environment.get("device_name"), "threads": environment.get("threads")}
    known |= {name: packages.get(name) for name in FINGERPRINT_PACKAGES}
    return known | {"data": str(record.rows_fingerprint)[:10]}


def _weights(record: Record) -> str:
    """Return the start of the SHA-256 of the base model's weights; empty if never loaded.

    It is taken as the method loads them: 4-bit weights have another digest.
    """
    return (
        str(record.environment["weights_sha256"])[:10]
        if record.environment.get("weights_sha256")
        else ""
    )


def _grouped(
    records: Iterable[Record],
    requested: Callable[[Record], Hashable],
    observed: Callable[[Record], Any],
) -> list[list[Record]]:
    """Group records by their requested settings and observed conditions.

    A record without observed conditions (a run that never started) joins the group with the same
    settings that finished nearest in time.
    """
    groups: dict[Hashable, dict[str, list[Record]]] = {}
    never_started: list[tuple[Hashable, Record]] = []
    for record in records:
        key, found = requested(record), observed(record)
        if found:
            groups.setdefault(key, {}).setdefault(_key(found), []).append(record)
        else:
            never_started.append((key, record))
    spans = {key: [(*_span(group), group) for group in of.values()] for key, of in groups.items()}
    for key, record in never_started:
        if key in spans:
            min(
                spans[key],
                key=lambda span: max(span[0] - record.finished, record.finished - span[1], 0.0),
            )[2].append(record)
        else:
            groups.setdefault(key, {}).setdefault("", []).append(record)
    return [group for of in groups.values() for group in of.values()]


def _span(records: Sequence[Record]) -> tuple[float, float]:
    times = [record.finished for record in records]
    return min(times), max(times)


def _layers(group: Sequence[Record]) -> Iterator[list[Record]]:
    """Split a group so that each layer has one set of hyperparameters per method, oldest first."""
    methods: dict[str, list[Record]] = {}
    for record in group:
        methods.setdefault(record.method_name, []).append(record)
    columns = [
        sorted(_grouped(methods[name], lambda r: method_key(r.spec.method), _weights), key=_age)
        for name in sorted(methods, key=_position)
    ]
    for layer in zip_longest(*columns, fillvalue=()):
        yield [record for records in layer for record in _one_per_seed(records)]


def _position(method: str) -> tuple[int, str]:
    """Sort key: the registry's order, unregistered methods last."""
    names = list(METHODS)
    return (names.index(method) if method in names else len(names)), method


def _one_per_seed(records: Iterable[Record]) -> list[Record]:
    """Keep one record of each seed: a finished one if there is any, else the newest."""
    kept: dict[int, Record] = {}
    for record in records:
        if record.seed not in kept or _preference(record) > _preference(kept[record.seed]):
            kept[record.seed] = record
    return [record for _, record in sorted(kept.items())]


def _preference(record: Record) -> tuple[bool, float, str]:
    """Sort key: finished before unfinished, then newer before older."""
    return record.status == "ok", record.finished, record.fingerprint


def _by_spec(prerequisites: Iterable[Record]) -> dict[Hashable, list[Record]]:
    found: dict[Hashable, list[Record]] = {}
    for record in prerequisites:
        found.setdefault(run_key(record.spec), []).append(record)
    return found


def _prerequisites_of(
    records: Sequence[Record], prerequisites: Mapping[Hashable, list[Record]]
) -> list[Record]:
    """Return the records of the prerequisite runs of these records.

    Of several records of one prerequisite run, one from the same environment is preferred.
    """
    kept: dict[Hashable, Record] = {}
    for record in records if prerequisites else ():
        for prerequisite in record.spec.prerequisites:
            key, where = run_key(prerequisite), _machine(record)
            if key in prerequisites and key not in kept:
                kept[key] = max(
                    prerequisites[key],
                    key=lambda one: (_machine(one) == where, *_preference(one)),
                )
    return list(kept.values())


def _machine(record: Record) -> Settings:
    return {name: value for name, value in surroundings(record).items() if name != "data"}


def _differences(first: Sequence[Record], other: Sequence[Record]) -> Iterator[str]:
    """List what differs: 'torch 2.11.0 → 2.13.0', 'budget.epochs 2 → 4', 'lora.rank 8 → 4'."""
    yield from _changes(
        {**flatten(_settings(first[0])), **_where(first)},
        {**flatten(_settings(other[0])), **_where(other)},
    )
    own, others = _methods(first), _methods(other)
    pairs = [(own[name], others[name]) for name in own if name in others]
    yield from dict.fromkeys(
        change
        for a, b in pairs
        for change in _changes({"weights": _weights(a)}, {"weights": _weights(b)})
    )
    for a, b in pairs:
        yield from _changes(
            flatten(a.spec.method_settings()),
            flatten(b.spec.method_settings()),
            f"{a.method_name}.",
        )


def _changes(
    before: Mapping[str, str], after: Mapping[str, str], prefix: str = ""
) -> Iterator[str]:
    for name in sorted({**before, **after}):
        if before.get(name, "None") != after.get(name, "None"):
            yield f"{prefix}{name} {before.get(name, 'None')} → {after.get(name, 'None')}"


def _where(records: Sequence[Record]) -> dict[str, str]:
    known = next((found for record in records if (found := surroundings(record))), {})
    return {name: str(value) for name, value in known.items()}


def _methods(records: Iterable[Record]) -> dict[str, Record]:
    """Return one record per method, preferably of a run that started."""
    return {
        record.method_name: record
        for record in sorted(records, key=lambda record: bool(record.environment))
    }
