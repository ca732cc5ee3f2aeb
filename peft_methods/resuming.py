"""Which cells need not be trained: those whose identity has a record already, with all that stands beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from peft_methods.cells import Cell, Preparation
from peft_methods.methods import METHODS
from peft_methods.records import Record
from peft_methods.store import Store

SIGNATURE = "identity.txt"  # in a kept model's folder: which cell's it is


class Earlier:
    """What earlier runs left in a store that is fit to be taken over. `warnings` name what was there and is not fit.

    `models` is where this run keeps models: there a cell without its model is a cell to train.
    """

    def __init__(self, store: Store, models: Path | None = None) -> None:
        self.warnings: list[str] = []
        self._store, self._models = store, models

    def record_of(self, cell: Cell, preparation: Preparation) -> Record | None:
        """The finished record of a cell, as this run asks for it; None where it must be trained.

        A cell that its engine could not run, and the stock one did, is found as long as the same engine is asked for.
        """
        fallen_back = [] if cell.engine == "stock" else [cell.fallen_back()]
        for one in (cell, *fallen_back):
            identity = self._identity(one, preparation)
            record = None if identity is None else self._store.find(identity)
            if record is not None and record.status == "ok" and self._is_whole(record, cell):
                return replace(record, reused=True, cell=one.spec(), tuning=cell.tuning)
        return None

    def _identity(self, cell: Cell, preparation: Preparation) -> str | None:
        """What the cell's own process will find; None where something it depends on could not be had."""
        facts, stages = (
            preparation.facts,
            [self._identity_of_stage(stage, preparation) for stage in cell.stages],
        )
        if (
            facts is None
            or None in stages
            or cell.recipe.name not in facts.data
            or (cell.method.info.quantization or "") not in facts.weights
        ):
            return None
        return cell.identity(
            weights=facts.weights[cell.method.info.quantization or ""],
            config=facts.config,
            tokenizer=facts.tokenizer,
            data=facts.data[cell.recipe.name],
            environment=facts.environment,
            stages=[stage for stage in stages if stage is not None],
        )

    def _identity_of_stage(self, stage: Cell, preparation: Preparation) -> str | None:
        """As its record says, which may be that of the engine that took over."""
        record = self.record_of(stage, preparation)
        return record.identity if record is not None else self._identity(stage, preparation)

    def _is_whole(self, record: Record, cell: Cell) -> bool:
        """Whether all that should be kept of a record is, as it was written."""
        damage = self._store.damage(record)
        if (
            not damage
            and self._models is not None
            and not cell.is_source
            and not _is_signed(self._models / cell.label, record.identity)
        ):
            damage = f"{self._models / cell.label} does not hold the model of {record.identity}"
        if damage and (line := f"{damage}, so {cell.label} is not reused.") not in self.warnings:
            self.warnings.append(line)
        return not damage


def sign(folder: Path, identity: str) -> None:
    """Say which cell's model a folder holds, once it is whole."""
    (folder / SIGNATURE).write_text(identity, encoding="utf-8")


def unsign(folder: Path) -> None:
    """Before another model is written there."""
    (folder / SIGNATURE).unlink(missing_ok=True)


def _is_signed(folder: Path, identity: str) -> bool:
    try:
        return (folder / SIGNATURE).read_text(encoding="utf-8") == identity
    except OSError:
        return False


def said_of(records: Sequence[Record]) -> str:
    """One line on what earlier runs trained of these records, row by row, and since when."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(_row_of(record), []).append(record)
    told = ", ".join(f"{row} ({_counted(found)})" for row, found in rows.items())
    when = time.strftime(
        "%Y-%m-%d %H:%M", time.localtime(min(record.finished for record in records))
    )
    return f"reused from an earlier run: {told}; the oldest ended {when}. Times are those of then; --peft-fresh trains all again."


def _row_of(record: Record) -> str:
    title = METHODS[record.method_name].title
    if record.cell.get("trial"):
        return f"trials of {title}"
    return f"sources of {record.recipe_name.partition('.source')[0]}" if record.is_source else title


def _counted(records: Sequence[Record]) -> str:
    """Sources and trials by number, others by their seeds; those of several recipes apart."""
    if records[0].is_source:
        return str(len(records))
    by_recipe: dict[str, list[int]] = {}
    for record in records:
        by_recipe.setdefault(record.recipe_name, []).append(record.seed)
    told = [
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" for seeds in by_recipe.values()
    ]
    return (
        told[0]
        if len(told) == 1
        else "; ".join(f"{recipe} {seeds}" for recipe, seeds in zip(by_recipe, told, strict=True))
    )
