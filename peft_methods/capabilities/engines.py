"""The check that all engines give the same losses, step by step."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

from peft_methods.capabilities.cells import ROUNDING, Cell, Result
from peft_methods.capabilities.findings import Broken, Findings, Unneeded
from peft_methods.capabilities.stepping import TRAINERS, switch_off_dropout, train
from peft_methods.capabilities.toy import Ground, build, unsupported
from peft_methods.runs.fitting_engine import with_fitting_engine
from peft_methods.runs.run_paths import RunPaths
from peft_methods.training.registry import DEFAULT, ENGINES
from peft_methods.utils.errors import EngineUnfit

Losses = tuple[float, ...]


def measure_engines(cell: Cell, ground: Ground, work: Path, device: str) -> Result:
    """Make only the check that the engines agree."""
    started, found = time.perf_counter(), Findings()
    if refused := unsupported(cell, ground, device):
        return refused
    check_engines(found, cell, ground, device, work=work)
    return found.result(started)


def check_engines(
    found: Findings, cell: Cell, ground: Ground, device: str, *, work: Path, known: Losses = ()
) -> None:
    """Compare the losses of each engine's steps with those of the default engine.

    `known` are those of the default engine with dropout. A method without dropout need not be
    trained with that engine again.
    """
    with found.check("engines"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*AccumulateGrad.*")  # torch's, of captured steps
        for name in (name for name in TRAINERS if name != DEFAULT):
            trial = build(cell, ground, device, work / name, name)
            fitting, paths = with_fitting_engine(trial.run, RunPaths(work))
            if fitting.engine != name:
                raise Unneeded(paths.engine_note)
            had_dropout = switch_off_dropout(trial.model)
            try:
                _, losses = train(trial, work / name, name)
            except EngineUnfit as error:
                found.unusable = device != "cpu"  # a failed capture leaves the GPU undefined
                raise Unneeded(f"falls back to {ENGINES[name].fallback}: {error}") from None
            if had_dropout or not known:
                known = _default_losses(cell, ground, device, work)
            _compare(name, losses, known, ROUNDING[cell.precision])


def _default_losses(cell: Cell, ground: Ground, device: str, work: Path) -> Losses:
    trial = build(cell, ground, device, work / DEFAULT)
    switch_off_dropout(trial.model)
    return train(trial, work / DEFAULT)[1]


def _compare(engine: str, losses: Losses, expected: Losses, rounding: float) -> None:
    if len(losses) != len(expected):
        raise Broken(f"{engine} made {len(losses)} steps, {DEFAULT} {len(expected)}")
    allowed = 10 * rounding * max(1.0, *map(abs, expected))
    for step, (one, other) in enumerate(zip(losses, expected, strict=True), 1):
        if not abs(one - other) <= allowed * step:  # differences grow from step to step
            raise Broken(
                f"the loss of step {step} is {other:.6g} with {DEFAULT}, {one:.6g} with {engine}"
            )
