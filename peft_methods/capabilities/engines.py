"""The check that all engines give the same losses, step by step."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import torch
from torch import nn

from peft_methods.capabilities.cells import ROUNDING, Cell, Result
from peft_methods.capabilities.findings import Broken, Findings, Unneeded
from peft_methods.capabilities.stepping import TRAINERS, nothing_drawn, train
from peft_methods.capabilities.toy import SEED, Ground, Trial, build, unsupported
from peft_methods.runs.fitting_engine import with_fitting_engine
from peft_methods.runs.run_paths import RunPaths
from peft_methods.training.registry import DEFAULT, ENGINES
from peft_methods.utils.errors import EngineUnfit

DISTURBANCE = 0.01  # standard deviation of what is added to each trained weight
Losses = tuple[float, ...]


def measure_engines(cell: Cell, ground: Ground, work: Path, device: str) -> Result:
    """Make only the check that the engines agree."""
    started, found = time.perf_counter(), Findings()
    if refused := unsupported(cell, ground, device):
        return refused
    check_engines(found, cell, ground, device, work=work)
    return found.result(started)


def check_engines(found: Findings, cell: Cell, ground: Ground, device: str, *, work: Path) -> None:
    """Compare the loss of each step of each engine with that of the default engine."""
    with found.check("engines"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*AccumulateGrad.*")  # torch's, of captured steps
        for name in (name for name in TRAINERS if name != DEFAULT):
            trial = build(cell, ground, device, work / name, name)
            fitting, paths = with_fitting_engine(trial.run, RunPaths(work))
            if fitting.engine != name:
                raise Unneeded(paths.engine_note)
            try:
                losses = _losses(trial, work / name)
            except EngineUnfit as error:
                found.unusable = device != "cpu"  # a failed capture leaves the GPU undefined
                raise Unneeded(f"falls back to {ENGINES[name].fallback}: {error}") from None
            expected = _losses(build(cell, ground, device, work / DEFAULT), work / DEFAULT)
            _compare(name, losses, expected, ROUNDING[cell.precision])


def _losses(trial: Trial, work: Path) -> Losses:
    """Return the loss of each step, of a training that follows from its arithmetic alone."""
    _disturb(trial.model)
    with nothing_drawn():
        return train(trial, work, trial.run.engine)[1]


def _disturb(model: nn.Module) -> None:
    """Move the trained weights a little away from where the method starts.

    Some weights start with a gradient that is zero but for rounding, such as those of DEFT whose
    rectified value is zero. AdamW makes steps of full size from rounding, so two engines would
    differ by a thousand times as much as they do with gradients of any size.
    """
    draw = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=draw)
                parameter.add_(DISTURBANCE * noise.to(parameter))


def _compare(engine: str, losses: Losses, expected: Losses, rounding: float) -> None:
    if len(losses) != len(expected):
        raise Broken(f"{engine} made {len(losses)} steps, {DEFAULT} {len(expected)}")
    allowed = 10 * rounding * max(1.0, *map(abs, expected))
    for step, (one, other) in enumerate(zip(losses, expected, strict=True), 1):
        if not abs(one - other) <= allowed:
            raise Broken(
                f"the loss of step {step} is {other:.6g} with {DEFAULT}, {one:.6g} with {engine}"
            )
