"""The check that all engines give the same losses, within rounding, in each step."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from peft_methods.capabilities.cells import Cell, Precision, Result
from peft_methods.capabilities.findings import Broken, Findings, Unneeded
from peft_methods.capabilities.stepping import TRAINERS, nothing_drawn, train
from peft_methods.capabilities.toy import SEED, Ground, Trial, build, unsupported
from peft_methods.runs.fitting_engine import with_fitting_engine
from peft_methods.runs.run_paths import RunPaths
from peft_methods.training.registry import DEFAULT, ENGINES
from peft_methods.utils.errors import EngineUnfit

DISTURBANCE = 0.01  # standard deviation of what is added to each trained weight
# How far the losses of a step may be apart, relative to the loss if that is above 1. In bf16 that
# is a few times the largest measured difference, which docs/reference/capabilities.md states.
ALLOWED: Mapping[Precision, float] = {"fp32": 1e-4, "bf16": 0.02}
# By what the cell's learning rates are divided. At the whole rates, a few steps amplify the
# rounding of bf16 without limit: losses of RandLoRA were 0.7 apart in step 11.
SLOWER: Mapping[Precision, float] = {"fp32": 1.0, "bf16": 10.0}
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
            _compare(name, losses, expected, ALLOWED[cell.precision])


def _losses(trial: Trial, work: Path) -> Losses:
    """Return the loss of each step, of a training that follows from its arithmetic alone."""
    trial = _slower(trial, SLOWER[trial.cell.precision])
    _disturb(trial.model)
    with nothing_drawn():
        return train(trial, work, trial.run.engine)[1]


def _slower(trial: Trial, factor: float) -> Trial:
    """Return the trial with lower learning rates."""
    method = trial.run.method
    head = method.head_learning_rate
    method = replace(
        method,
        learning_rate=method.learning_rate / factor,
        head_learning_rate=None if head is None else head / factor,
    )
    return replace(trial, run=replace(trial.run, method=method))


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


def _compare(engine: str, losses: Losses, expected: Losses, allowed: float) -> None:
    if len(losses) != len(expected):
        raise Broken(f"{engine} made {len(losses)} steps, {DEFAULT} {len(expected)}")
    for step, (one, other) in enumerate(zip(losses, expected, strict=True), 1):
        if not abs(one - other) <= allowed * max(1.0, abs(other)):
            raise Broken(
                f"the loss of step {step} is {other:.6g} with {DEFAULT}, {one:.6g} with {engine}"
            )
