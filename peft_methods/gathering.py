"""Records of any number of runs -> sections: comparisons in which nothing but method and seed differs.

A row is a mean over seeds, so what it is made of must be alike in all else: the recipe's settings, the engine, the device,
library versions, data and weights, and the method's hyperparameters. What is not alike stands in a section of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from peft_methods.comparing import Comparison
from peft_methods.environment import IDENTITY_PACKAGES
from peft_methods.gate import flat
from peft_methods.methods import METHODS
from peft_methods.quality import Predictions
from peft_methods.records import Record

Settings = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One recipe's records that may stand in one table, their sources with them.

    `number` counts a recipe's sections, the oldest first but those without figures last; `apart` says in what a later one
    differs from the first.
    """

    recipe: str
    number: int
    apart: tuple[str, ...]
    comparison: Comparison

    @property
    def has_figures(self) -> bool:
        """Whether any of its cells ended well."""
        return any(
            record.status == "ok" and not record.is_source for record in self.comparison.records
        )

    @property
    def name(self) -> str:
        """The recipe's name, numbered from its second section on."""
        return self.recipe if self.number == 1 else f"{self.recipe} ({self.number})"


def together(sections: Iterable[Section]) -> Comparison:
    """All sections in one comparison, as recipes under the sections' names."""
    sections = list(sections)
    records = [
        replace(
            record, cell={**record.cell, "recipe": {**record.cell["recipe"], "name": section.name}}
        )
        for section in sections
        for record in section.comparison.records
    ]
    notes = tuple(
        f"{section.name}: {'; '.join(section.apart)}" for section in sections if section.apart
    )
    return Comparison(
        tuple(records), notes, sections[0].comparison.predictions, sections[0].comparison.silenced
    )


def gather(
    records: Iterable[Record],
    predictions: Mapping[str, Predictions] | None = None,
    silenced: tuple[str, ...] = (),
) -> list[Section]:
    """Sections by recipe and age, those without a cell that ended well last.

    Of two records of one cell the finished one counts, of two such the newer.
    A source stands in every section that has a cell built on it. Trials of tuning are left out: what they found stands in
    the records of the cells that they were for.
    """
    records = list(records)
    sources = _by_spec(
        record for record in records if record.is_source and not record.cell.get("trial")
    )
    found: dict[str, list[list[Record]]] = {}
    for group in _alike(
        (record for record in records if not record.is_source), _settings, _surroundings
    ):
        for layer in _layers(group):
            found.setdefault(layer[0].recipe_name, []).append(layer)
    sections = []
    for recipe, layers in sorted(found.items()):
        first, *_ = ordered = sorted(
            layers,
            key=lambda layer: (not any(record.status == "ok" for record in layer), _age(layer)),
        )
        for number, layer in enumerate(ordered, 1):
            apart = tuple(_differences(first, layer)) if number > 1 else ()
            comparison = Comparison(
                (*layer, *_sources_of(layer, sources)),
                predictions=predictions or {},
                silenced=silenced,
            )
            sections.append(Section(recipe, number, apart, comparison))
    return sections


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _age(records: Sequence[Record]) -> tuple[float, str]:
    """When the first of them finished."""
    return min(record.finished for record in records), min(record.identity for record in records)


def _settings(record: Record) -> Settings:
    """What was asked for but method and seed. A cell that another engine had to take over was asked of the graphed one."""
    engine = "graphed" if record.environment.get("engine_note") else record.cell["engine"]
    return {"recipe": record.cell["recipe"], "engine": engine, "device": record.cell["device"]}


def _surroundings(record: Record) -> Settings:
    """Where and on what it ran, as far as figures depend on it; empty for a cell that never got so far."""
    environment, packages = record.environment, record.environment.get("packages") or {}
    if not environment:
        return {}
    known = {"device": environment.get("device_name"), "threads": environment.get("threads")}
    known |= {name: packages.get(name) for name in IDENTITY_PACKAGES}
    return known | {"data": str(record.data.get("fingerprint"))[:10]}


def _weights(record: Record) -> str:
    """The base model's, as the method took it up: 4-bit weights are others. Empty for a cell that never got so far."""
    return (
        str(record.environment["weights_sha256"])[:10]
        if record.environment.get("weights_sha256")
        else ""
    )


def _alike(
    records: Iterable[Record], asked: Callable[[Record], Any], met: Callable[[Record], Any]
) -> list[list[Record]]:
    """Records grouped by what was asked for and what they met. One that met nothing yet joins those that finished nearest to it."""
    groups: dict[str, dict[str, list[Record]]] = {}
    lost: list[tuple[str, Record]] = []
    for record in records:
        key, found = _plain(asked(record)), met(record)
        if found:
            groups.setdefault(key, {}).setdefault(_plain(found), []).append(record)
        else:
            lost.append((key, record))
    spans = {key: [(*_span(group), group) for group in of.values()] for key, of in groups.items()}
    for key, record in lost:
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
    """A method that was run with several hyperparameters has one of them in each layer, the oldest in the first."""
    methods: dict[str, list[Record]] = {}
    for record in group:
        methods.setdefault(record.method_name, []).append(record)
    columns = [
        sorted(_alike(methods[name], lambda r: r.cell["method"], _weights), key=_age)
        for name in sorted(methods, key=_rank)
    ]
    for layer in zip_longest(*columns, fillvalue=()):
        yield [record for records in layer for record in _one_a_seed(records)]


def _rank(method: str) -> tuple[int, str]:
    """The registry's order; what it does not know comes last."""
    names = list(METHODS)
    return (names.index(method) if method in names else len(names)), method


def _one_a_seed(records: Iterable[Record]) -> list[Record]:
    kept: dict[int, Record] = {}
    for record in records:
        if record.seed not in kept or _weight(record) > _weight(kept[record.seed]):
            kept[record.seed] = record
    return [record for _, record in sorted(kept.items())]


def _weight(record: Record) -> tuple[bool, float, str]:
    return record.status == "ok", record.finished, record.identity


def _stage(spec: Mapping[str, Any]) -> str:
    """A source's spec less its engine: where that failed the stock engine took its place."""
    return _plain({name: value for name, value in spec.items() if name != "engine"})


def _by_spec(sources: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for source in sources:
        found.setdefault(_stage(source.cell), []).append(source)
    return found


def _sources_of(records: Sequence[Record], sources: Mapping[str, list[Record]]) -> list[Record]:
    """The records of the cells that these were built on, from the same surroundings where there are several."""
    kept: dict[str, Record] = {}
    for record in records:
        for stage in record.cell.get("stages", ()):
            key, where = _stage(stage), _machine(record)
            if key in sources and key not in kept:
                kept[key] = max(
                    sources[key], key=lambda source: (_machine(source) == where, *_weight(source))
                )
    return list(kept.values())


def _machine(record: Record) -> Settings:
    return {name: value for name, value in _surroundings(record).items() if name != "data"}


def _differences(first: Sequence[Record], other: Sequence[Record]) -> Iterator[str]:
    """'torch 2.11.0 → 2.13.0', 'budget.epochs 2 → 4', 'lora.rank 8 → 4': what sets one section apart from another."""
    yield from _changes(
        {**flat(_settings(first[0])), **_where(first)},
        {**flat(_settings(other[0])), **_where(other)},
    )
    own, others = _methods(first), _methods(other)
    pairs = [(own[name], others[name]) for name in own if name in others]
    yield from dict.fromkeys(
        change
        for a, b in pairs
        for change in _changes({"weights": _weights(a)}, {"weights": _weights(b)})
    )
    for a, b in pairs:
        yield from _changes(flat(a.cell["method"]), flat(b.cell["method"]), f"{a.method_name}.")


def _changes(
    before: Mapping[str, str], after: Mapping[str, str], prefix: str = ""
) -> Iterator[str]:
    for name in sorted({**before, **after}):
        if before.get(name, "None") != after.get(name, "None"):
            yield f"{prefix}{name} {before.get(name, 'None')} → {after.get(name, 'None')}"


def _where(records: Sequence[Record]) -> dict[str, str]:
    known = next((found for record in records if (found := _surroundings(record))), {})
    return {name: str(value) for name, value in known.items()}


def _methods(records: Iterable[Record]) -> dict[str, Record]:
    """One record of each method, of a cell that ran where there is one."""
    return {
        record.method_name: record
        for record in sorted(records, key=lambda record: bool(record.environment))
    }
