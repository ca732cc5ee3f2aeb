"""Reuse of finished runs: find runs whose fingerprint already has an intact record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from peft_methods.methods.registry import METHODS
from peft_methods.runs.isolation.marks import differs_when_fresh
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store
from peft_methods.training.registry import engine_of

SIGNATURE = "fingerprint.txt"  # in a saved model's folder: the fingerprint of its run


class ReusableRuns:
    """Finished runs of earlier sessions that can be reused from a store.

    `warnings` names the damaged ones that cannot be reused. `models` is the folder where this
    session saves models: if it is set, a run without its saved model must be trained again.
    """

    def __init__(self, store: Store, models: Path | None = None) -> None:
        self.warnings: list[str] = []
        self._store, self._models = store, models

    def record_of(self, run: RunSpec, preparation: PreparedRecipe) -> Record | None:
        """Return the finished record of a run with this session's spec; None if it must be trained.

        A run that fell back to the trainer engine is found if the same engine is requested again.
        """
        with_fallback_engine = (
            [] if engine_of(run.engine).fallback is None else [run.with_fallback_engine()]
        )
        for one in (run, *with_fallback_engine):
            fingerprint = self._fingerprint(one, preparation)
            record = None if fingerprint is None else self._store.find(fingerprint)
            if record is not None and record.status == "ok" and self._is_whole(record, run):
                return replace(
                    record, reused=True, spec=one, tuning=run.tuning, seed_plan=run.seed_plan
                )
        return None

    def _fingerprint(self, run: RunSpec, preparation: PreparedRecipe) -> str | None:
        """Return the fingerprint that the run will have; None if an input could not be loaded."""
        facts = preparation.facts
        prerequisites = [self._prerequisite(one, preparation) for one in run.prerequisites]
        if (
            facts is None
            or None in prerequisites
            or run.rows_name not in facts.data
            or (run.method.info.quantization or "") not in facts.weights
        ):
            return None
        return run.fingerprint(
            weights=facts.weights[run.method.info.quantization or ""],
            config=facts.config,
            tokenizer=facts.tokenizer,
            data=facts.data[run.rows_name],
            environment=facts.environment,
            prerequisites=[one for one in prerequisites if one is not None],
        )

    def _prerequisite(self, run: RunSpec, preparation: PreparedRecipe) -> str | None:
        """Return a prerequisite run's fingerprint, from its record if there is one.

        The record may be of the fallback engine, which has another fingerprint.
        """
        record = self.record_of(run, preparation)
        return self._fingerprint(run, preparation) if record is None else record.fingerprint

    def _is_whole(self, record: Record, run: RunSpec) -> bool:
        """Whether all files of a record are complete and unchanged; adds a warning if not."""
        damage = self._store.damage(record)
        if (
            not damage
            and self._models is not None
            and run.role == "main"
            and not _is_signed(self._models / run.label, record.fingerprint)
        ):
            damage = f"{self._models / run.label} does not hold the model of {record.fingerprint}"
        if differs_when_fresh(record):
            damage = "a run of its session gave other results in a fresh process"
        if damage and (line := f"{damage}, so {run.label} is not reused.") not in self.warnings:
            self.warnings.append(line)
        return not damage


def sign(folder: Path, fingerprint: str) -> None:
    """Mark a folder as holding the complete model of the run with this fingerprint."""
    (folder / SIGNATURE).write_text(fingerprint, encoding="utf-8")


def unsign(folder: Path) -> None:
    """Remove a folder's mark. Call it before another model is written there."""
    (folder / SIGNATURE).unlink(missing_ok=True)


def _is_signed(folder: Path, fingerprint: str) -> bool:
    try:
        return (folder / SIGNATURE).read_text(encoding="utf-8") == fingerprint
    except OSError:
        return False


def reuse_note(records: Sequence[Record]) -> str:
    """Format a note on the reused records by method, with the age of the oldest."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(_row_of(record), []).append(record)
    reused = ", ".join(f"{row} ({_counted(found)})" for row, found in rows.items())
    when = time.strftime(
        "%Y-%m-%d %H:%M", time.localtime(min(record.finished for record in records))
    )
    return (
        f"reused from an earlier session: {reused}; the oldest finished {when}. Their times and "
        "memory were measured then. Set fresh to train everything again."
    )


def _row_of(record: Record) -> str:
    title = METHODS[record.method_name].title
    if record.role == "trial":
        return f"trials of {title}"
    if record.role == "prerequisite":
        return f"prerequisite runs of {record.recipe_name.partition('.source')[0]}"
    return title


def _counted(records: Sequence[Record]) -> str:
    """Describe records of one method: prerequisite runs and trials by count, others by seed.

    Several recipes are listed separately.
    """
    if records[0].role != "main":
        return str(len(records))
    by_recipe: dict[str, list[int]] = {}
    for record in records:
        by_recipe.setdefault(record.recipe_name, []).append(record.seed)
    listed = {
        recipe: f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        for recipe, seeds in by_recipe.items()
    }
    if len(listed) == 1:
        return next(iter(listed.values()))
    return "; ".join(f"{recipe} {seeds}" for recipe, seeds in listed.items())
