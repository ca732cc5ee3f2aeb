"""The checks of a cell: what a method must keep when it trains a tiny model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peft_methods.capabilities.cells import ROUNDING, Cell, Result
from peft_methods.capabilities.engines import check_engines
from peft_methods.capabilities.findings import Broken, Findings, Unneeded, some
from peft_methods.capabilities.stepping import train
from peft_methods.capabilities.toy import SEED, Ground, Trial, build, plain_outputs, unsupported
from peft_methods.models.module_names import in_modules
from peft_methods.models.parameters import count_parameters
from peft_methods.runs.export import save_trained
from peft_methods.training import weight_checks
from peft_methods.training.activation_checkpointing import checkpointing, layers_of
from peft_methods.training.evidence import Evidence

FALLS = 0.98  # the loss of the training rows becomes at most this part of what it was
OUTPUTS = "outputs.npy"  # of the trained model for the test rows, beside its weights


def measure(cell: Cell, ground: Ground, work: Path, saved: Path, device: str = "cpu") -> Result:
    """Make all checks of a cell but `reload`, for which the trained model is left in `saved`."""
    started, found = time.perf_counter(), Findings()
    if refused := unsupported(cell, ground, device):
        return refused
    trial: Trial | None = None
    with found.check("count"):
        trial = build(cell, ground, device, work / "first")
        _check_count(trial)
    if trial is None:
        return found.result(started)
    with found.check("start"):
        _check_start(trial, ground)
    losses: tuple[float, ...] = ()
    evidence: Evidence | None = None
    with found.check("trains"):
        (work / "first").mkdir(parents=True, exist_ok=True)
        before, first = weight_checks.snapshot(trial.model, work / "first"), _loss(trial)
        last: list[float] = []
        training, losses = train(trial, work / "first", at_end=lambda: last.append(_loss(trial)))
        evidence = _evidence(trial, before, training.decay)
        _check_training(first, last[0], evidence)
    if evidence is None:
        return found.result(started)
    outputs = trial.outputs()
    with found.check("head"):
        _check_head(trial, evidence)
    with found.check("frozen"):
        if evidence.frozen_changed:
            raise Broken(some("frozen weights changed", evidence.frozen_changed))
    with found.check("checkpointing"):
        _check_checkpointing(trial)
    with found.check("repeat"):
        _check_repeat(trial, losses, ground, work / "second")
    check_engines(found, cell, ground, device, work=work)
    if "trains" in found.passed:
        with found.check("reload"):  # the other process takes it back if it finds a difference
            _save(trial, outputs, saved)
    with found.check("merge"):
        _check_merge(trial, outputs)
    return found.result(started)


def _check_count(trial: Trial) -> None:
    counted = count_parameters(trial.model, trial.base.head)
    expected = trial.run.method.expected_trainable(trial.base.architecture)
    if expected is None:
        raise Unneeded("the method has no closed form for this model")
    if counted.method != expected:
        raise Broken(f"{counted.method:,} trainable parameters, expected {expected:,}")
    if counted.head != trial.base.architecture.head_parameters:
        raise Broken(
            f"{counted.head:,} of the head's {trial.base.architecture.head_parameters:,} "
            f"parameters are trainable"
        )


def _check_start(trial: Trial, ground: Ground) -> None:
    tolerance = trial.run.method.info.start_tolerance
    if tolerance is None:
        raise Unneeded("the method promises nothing about its start")
    _compare(trial.outputs(), plain_outputs(trial, ground), trial.cell, tolerance)


def _compare(now: Tensor, before: Tensor, cell: Cell, tolerance: float = 0.0) -> None:
    """Raise `Broken` if outputs differ by more than the tolerance and rounding."""
    if now.shape != before.shape:
        raise Broken(f"outputs have the shape {tuple(now.shape)} and not {tuple(before.shape)}")
    if not bool(torch.isfinite(now).all()):
        raise Broken("outputs are not finite")
    scale = max(1.0, float(before.abs().max()))
    difference, allowed = float((now - before).abs().max()), tolerance + ROUNDING[cell.precision]
    if difference > allowed * scale:
        raise Broken(f"outputs differ by {difference:.2g}, allowed are {allowed * scale:.2g}")


def _loss(trial: Trial) -> float:
    """Return the mean loss of the training rows as a prediction has it, without dropout."""
    trial.model.eval()
    with torch.no_grad():
        return float(trial.loss())


def _evidence(trial: Trial, before: weight_checks.StateBefore, decay: Sequence[float]) -> Evidence:
    return weight_checks.weight_evidence(
        trial.model,
        before,
        decay=decay,
        architecture=trial.base.architecture,
        head=trial.base.head,
        method=trial.run.method,
    )


def _check_training(before: float, after: float, evidence: Evidence) -> None:
    if not after <= FALLS * before:
        raise Broken(f"the loss was {before:.4g} before training, and {after:.4g} after it")
    if evidence.unmoved:
        raise Broken(some("trained weights did not move", evidence.unmoved))


def _check_head(trial: Trial, evidence: Evidence) -> None:
    head = trial.base.head
    if trial.task.head.pretrained:
        raise Unneeded("the task's head is a part of the pretrained model")
    trained = [
        (name, parameter.requires_grad)
        for name, parameter in trial.model.named_parameters()
        if in_modules(name, head) and ".original_module." not in name
    ]
    idle = [name for name, grows in trained if not grows] + [
        name for name in evidence.unmoved if in_modules(name, head)
    ]
    if not trained:
        raise Broken(f"the model has no head {', '.join(head)}")
    if idle:
        raise Broken(some("weights of the head are not trained", tuple(idle)))


def _check_checkpointing(trial: Trial) -> None:
    if not layers_of(trial.model):
        raise Unneeded("the model has no list of layers")
    plain, recomputed = (_gradients(trial, on=on) for on in (False, True))
    if not any(gradient.any() for gradient in plain.values()):
        raise Broken("all gradients are zero")
    if plain.keys() != recomputed.keys():
        raise Broken(some("gradients are missing", tuple(plain.keys() ^ recomputed.keys())))
    allowed = ROUNDING[trial.cell.precision] * max(float(g.abs().max()) for g in plain.values())
    wrong = [n for n, g in plain.items() if float((g - recomputed[n]).abs().max()) > allowed]
    if wrong:
        raise Broken(some("gradients differ", tuple(wrong)))


def _gradients(trial: Trial, *, on: bool) -> dict[str, Tensor]:
    trial.model.train()
    torch.manual_seed(SEED)  # equal dropout
    with checkpointing(trial.model, on=on):
        trial.loss().backward()  # type: ignore[no-untyped-call]
    found = {
        name: parameter.grad.detach().clone()
        for name, parameter in trial.model.named_parameters()
        if parameter.grad is not None
    }
    trial.model.zero_grad()
    return found


def _check_repeat(trial: Trial, losses: tuple[float, ...], ground: Ground, work: Path) -> None:
    again = build(trial.cell, ground, trial.run.device, work)
    _, repeated = train(again, work)
    if repeated != losses:
        step = next(i for i, (a, b) in enumerate(zip(losses, repeated, strict=True)) if a != b)
        raise Broken(f"the loss of step {step + 1} was {losses[step]!r}, then {repeated[step]!r}")
    one, two = (dict(each.model.named_parameters()) for each in (trial, again))
    changed = [n for n, p in one.items() if p.requires_grad and not torch.equal(p, two[n])]
    if changed:
        raise Broken(some("weights differ in the second run", tuple(changed)))


def _save(trial: Trial, outputs: Tensor, folder: Path) -> None:
    save_trained(trial.model, trial.run, trial.base, folder)
    np.save(folder / OUTPUTS, outputs.numpy())


def _check_merge(trial: Trial, outputs: Tensor) -> None:
    merged: Any = trial.run.method.merge(trial.model)
    if not trial.run.method.info.mergeable:
        if merged is not None:
            raise Broken("the method was merged, and says that it cannot be")
        raise Unneeded("the method cannot be merged")
    if merged is None:
        raise Broken("the method was not merged, and says that it can be")
    _compare(trial.outputs(merged), outputs, trial.cell)
