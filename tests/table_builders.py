"""Honest tables of results: measured costs of stored baselines, counts by the closed forms.

Nothing in them is wrong, so no error may be found in them. `table_flaws` plants mistakes.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from peft_methods.analysis.checks.counts.heads import UNBIASED
from peft_methods.analysis.checks.parameter_counts import known_models
from peft_methods.methods.registry import METHODS
from peft_methods.models.architecture import Architecture

BASELINES = Path(__file__).parents[1] / "benchmarks/baselines"
DEVICE_BYTES = 130e9  # the peak of full fine-tuning is at most this, below an H200's memory
FLOPS = 1e15  # a second: more than any device of the baselines does in dense 16-bit arithmetic
TEST_ROWS = (408, 872, 1_000, 1_319, 2_000, 7_600, 25_000)
TRAIN_ROWS = (2_000, 3_668, 8_000, 16_000, 25_000, 67_349)
RATES = {"full": 2e-5}
USUAL_RATES = (1e-4, 2e-4, 3e-4, 5e-4, 1e-3)
RANKED = ("lora", "qlora", "dora", "rslora", "pissa", "lora_plus", "lora_fa", "hra", "loha")
# Methods that train beside LoRA's products little else: they cost up to a fifth more.
KIN = ("dora", "rslora", "pissa", "olora", "lora_plus", "adalora", "delora")
MEASURED = ("full", "lora", "qlora", "ia3", "bitfit", "head_only", "adapter")


@dataclass(frozen=True)
class TableRow:
    """One line: values in base units, shares in 0..1; what is None is not written."""

    method: str
    name: str
    model: str
    trainable: int | None = None
    total: int | None = None
    share: float | None = None
    accuracy: float | None = None
    validation_accuracy: float | None = None
    validation_accuracies: tuple[float, ...] = ()
    validation_losses: tuple[float, ...] = ()
    train_seconds: float | None = None
    samples_per_second: float | None = None
    energy_joules: float | None = None
    peak_memory: float | None = None
    max_memory: float | None = None
    epochs: int | None = None
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    max_length: int | None = None
    learning_rate: float | None = None
    train_rows: int | None = None
    test_rows: int | None = None
    majority: float | None = None
    precision: str | None = None
    device: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows on one model and data set, and the architecture they are about."""

    rows: tuple[TableRow, ...]
    architecture: Architecture
    facts: Mapping[str, Any] = field(default_factory=dict)

    def changed(self, index: int, **values: Any) -> Table:
        """Return this table with other values in one row."""
        rows = list(self.rows)
        rows[index] = replace(rows[index], **values)
        return replace(self, rows=tuple(rows))

    def index_of(self, *methods: str) -> int | None:
        """Return the first row of one of these methods."""
        return next((i for i, row in enumerate(self.rows) if row.method in methods), None)


@dataclass(frozen=True)
class Costs:
    """What a method cost in a stored baseline."""

    seconds: float
    peak: float
    joules: float


@cache
def measured_costs() -> tuple[tuple[float, Mapping[str, Costs]], ...]:
    """Return (total parameters, costs by method) of each stored baseline that has LoRA and full."""
    found = []
    for path in sorted(BASELINES.rglob("*.json")):
        infos = [one["extra_info"] for one in json.loads(path.read_text())["benchmarks"]]
        metrics = {info["method"]: info["metrics"] for info in infos}
        costs = {
            method: Costs(
                one["train_seconds"][0],
                one["peak_memory_bytes"][0],
                one.get("energy_joules", [0.0])[0] or 300.0 * one["train_seconds"][0],
            )
            for method, one in metrics.items()
            if method in MEASURED
        }
        if {"full", "lora"} <= set(costs):
            found.append((metrics["full"]["total_parameters"][0], costs))
    return tuple(found)


CLASSES = (2, 3, 4, 6, 20)


@cache
def models() -> dict[str, tuple[Architecture, ...]]:
    """Return the known models by name, as classifiers with two classes and more."""
    return {
        name: tuple(_classifier(one, labels) for labels in CLASSES)
        for name, one in known_models().items()
        if one.hidden and one.module_map is not None
    }


def _classifier(model: Architecture, labels: int) -> Architecture:
    """Add the last matrix of a head; a decoder's has no bias. A dense layer is counted already."""
    each = model.hidden + (model.model_type not in UNBIASED)
    return replace(model, labels=labels, head_parameters=model.head_parameters + each * labels)


def honest_table(rng: random.Random) -> Table:
    """Return a table of one model: with costs that were measured, or with many methods' counts."""
    name = rng.choice(sorted(models()))
    architecture = rng.choice(models()[name])
    if rng.random() < 0.35:
        chosen = ["full", *rng.sample([one for one in METHODS if one != "full"], rng.randint(1, 5))]
        rows = [row for one in chosen if (row := _counted(rng, one, name, architecture))]
        return Table(_with_quality(rng, rows), architecture)
    total, costs = rng.choice(measured_costs())
    chosen = [one for one in costs if one in {"full", "lora"} or rng.random() < 0.7]
    chosen += rng.sample(KIN, rng.randint(0, 2))
    rows = [row for one in chosen if (row := _counted(rng, one, name, architecture))]
    rows = _with_costs(rng, rows, total, costs)
    return Table(_with_quality(rng, rows), architecture)


def mixed_table(rng: random.Random) -> Table:
    """Return a table of two models, or of two to three seeds of each method."""
    table = honest_table(rng)
    if rng.random() < 0.5:
        return replace(table, rows=table.rows + honest_table(rng).rows)
    seeds = range(42, 42 + rng.randint(2, 3))
    rows = [
        replace(row, seed=seed, accuracy=(row.accuracy or 0.0) - 0.002 * (seed - 42))
        for row in table.rows
        for seed in seeds
    ]
    return replace(table, rows=tuple(rows))


def with_tokens(table: Table, tokens: int, factor: float = 1.0) -> Table | None:
    """Add a row of prefixes with this many virtual tokens; `factor` makes its count wrong."""
    full = table.rows[0]
    built = METHODS["p_tuning_v2"](learning_rate=1e-3, num_virtual_tokens=tokens)
    if built.unsupported(table.architecture, "cuda"):
        return None
    own = round(factor * (built.expected_trainable(table.architecture) or 0))
    count = own + table.architecture.head_parameters
    name = f"Prefix-Tuning ({tokens} tokens)"
    row = TableRow("p_tuning_v2", name, full.model, count, accuracy=full.accuracy)
    return replace(table, rows=(*table.rows, row))


def _counted(
    rng: random.Random, method: str, model: str, architecture: Architecture
) -> TableRow | None:
    """Return a row with the method's closed form and the head; None where it has no form."""
    settings = {"rank": rng.choice((2, 4, 8, 16, 32))} if method in RANKED else {}
    info = METHODS.info(method)
    try:
        built = METHODS[method](learning_rate=1e-3, **settings)
        # A quantised method is also unsupported where its library is not installed.
        if info.quantization is None and built.unsupported(architecture, "cuda"):
            return None
        own = built.expected_trainable(architecture)
    except (TypeError, ValueError):  # needs other runs or settings, or a size it cannot divide
        return None
    if own is None:
        return None
    full, trainable = architecture.encoder_parameters, own + architecture.head_parameters
    added = 0 if info.scope in {"all", "head"} or info.family == "selective" else own
    rank = f" (r={settings['rank']})" if settings and rng.random() < 0.5 else ""
    total = full + architecture.head_parameters + added
    return TableRow(method, info.title + rank, model, trainable, total, trainable / total)


def _with_costs(
    rng: random.Random, rows: list[TableRow], measured: float, costs: Mapping[str, Costs]
) -> list[TableRow]:
    """Scale a baseline's costs to this model: all times by one factor, all peaks by another."""
    size = max(row.total or 0 for row in rows)
    train, length, batch = rng.choice(TRAIN_ROWS), rng.choice((128, 256, 512)), rng.choice((8, 16))
    epochs = rng.randint(1, 5)
    least = 6.0 * size * train * epochs * length / FLOPS
    factor = rng.uniform(2, 6) * max(least / costs["full"].seconds, size / measured)
    memory = min(size / measured, DEVICE_BYTES / costs["full"].peak)
    found = []
    for row in rows:
        kin = row.method not in costs
        own = costs["lora" if kin else row.method]
        more = rng.uniform(1.02, 1.2) if kin else 1.0
        seconds = own.seconds * factor * more * rng.uniform(0.98, 1.02)
        found.append(
            replace(
                row,
                train_seconds=seconds,
                samples_per_second=train * epochs / seconds,
                energy_joules=seconds * min(own.joules / own.seconds, 600.0),
                peak_memory=own.peak * memory * more * rng.uniform(0.999, 1.001),
                epochs=epochs,
                batch_size=batch,
                max_length=length,
                train_rows=train,
                steps_per_epoch=math.ceil(train / batch),
                device="NVIDIA H200",
                precision="bf16",
            )
        )
    return found


def _with_quality(rng: random.Random, rows: list[TableRow]) -> tuple[TableRow, ...]:
    """Add accuracies that are counts of rows, above the majority class, and usual rates."""
    test, base = rng.choice(TEST_ROWS), rng.uniform(0.72, 0.94)
    majority = rng.uniform(0.5, 0.6)
    found = []
    for row in rows:
        right = round(test * min(base + rng.uniform(-0.03, 0.03), 0.985))
        last = min(right / test + rng.uniform(0.001, 0.012), 0.995)
        left = range((row.epochs or 4) - 1, -1, -1)  # epochs after this one
        log = tuple(last - 0.012 * one**1.5 for one in left)
        found.append(
            replace(
                row,
                accuracy=right / test,
                validation_accuracy=last,
                validation_accuracies=log,
                validation_losses=tuple(2.1 * (1 - one) for one in log),
                max_memory=row.peak_memory,
                test_rows=test,
                majority=majority,
                learning_rate=RATES.get(row.method) or rng.choice(USUAL_RATES),
            )
        )
    return tuple(found)
