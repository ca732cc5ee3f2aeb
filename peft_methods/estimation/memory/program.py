"""The program of a run on a GPU: load, a training step on the longest batch, one evaluation.

It runs on tensors without data, and what it does with memory is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peft_methods.estimation.memory import packed
from peft_methods.estimation.memory.compiled import as_compiled
from peft_methods.estimation.memory.cuda_rules import CudaRules, autocast_flags
from peft_methods.estimation.memory.fake_run import FakeRun
from peft_methods.estimation.memory.owners import owners_of, weights_of
from peft_methods.estimation.memory.recorder import Recorder, Recording
from peft_methods.estimation.memory.unpadded import without_padding
from peft_methods.methods.base import Method
from peft_methods.methods.registry import METHODS
from peft_methods.profiling.peak_memory import Owners
from peft_methods.tasks.registry import TASKS
from peft_methods.training.activation_checkpointing import checkpointing
from peft_methods.training.optimizers import moved_codes, optimizer_of
from peft_methods.training.precision import HALF, autocast


@dataclass(frozen=True)
class RecordedProgram:
    """What a run does with memory.

    `starts` has the first event of each part: "hold" (weights are in half precision from now on),
    "step" and "evaluate". `owners` tells the parts of blocks that are alive in "step"; its indices
    are those of all events.
    """

    recording: Recording
    starts: Mapping[str, int]
    owners: Owners
    rows: int
    tokens: int
    trainable: int
    total: int


def record(run: FakeRun) -> RecordedProgram:
    """Run the program and record it. Its training step creates the optimizer state."""
    recorder, starts, model = Recorder(run.mode), {}, run.model
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = recorder.own(weights_of(model))
    loaded = _bytes(model)
    starts["hold"] = len(recorder.recording.events)
    if run.packs:
        packed.hold_in_half(
            model,
            run.method,
            run.recipe.budget.precision,
            run.mode,
            embeddings=run.is_in_16_bits,
        )
        weights = [*recorder.own(weights_of(model)), *weights]
    starts["step"] = len(recorder.recording.events)
    unpadded = nullcontext() if run.pads else without_padding(model)
    kind, settings = optimizer_of(
        run.method, model, torch.optim.AdamW, {"lr": 0.0, "fused": True, "weight_decay": 0.0}
    )
    optimizer = kind(trained, **settings)
    with run.mode, recorder, unpadded:
        moved_codes(optimizer)
        model.train()
        with checkpointing(model, on=run.recipe.budget.gradient_checkpointing):
            done = _step(run, recorder, trained, optimizer)
        owners = owners_of(recorder, weights, trained, optimizer, done)
        accumulates = run.recipe.budget.gradient_accumulation > 1
        if accumulates:  # gradients stay for the next step
            starts["evaluate"] = len(recorder.recording.events)
        for parameter in trained:
            parameter.grad = None
        starts.setdefault("evaluate", len(recorder.recording.events))
        recorder.add(loaded - _bytes(model), "weights in full precision")
        _evaluate(run, recorder)
    ids: torch.Tensor = run.batch["input_ids"]
    return RecordedProgram(
        recorder.recording.ended(),
        starts,
        owners,
        len(run.batch["labels"]) if run.packs else len(ids),
        ids.numel(),
        sum(p.numel() for p in trained),
        sum(p.numel() for p in model.parameters()),
    )


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _step(run: FakeRun, recorder: Recorder, trained: Sequence[nn.Parameter], optimizer: Any) -> int:
    """Run one training step. Return the number of events until the backward pass was done."""
    budget = run.recipe.budget
    batch = _on_gpu(run.batch, recorder)
    recorder.part = "forward"
    with _way_of(run, recorder, batch):
        with _computing(run, cached=not run.packs):
            found = TASKS[run.recipe.task].loss(run.model, batch)
            loss = found.mean
        extra = run.method.penalty(run.model)
        if extra is not None:
            loss = loss + extra
        recorder.part = "backward"
        half = HALF.get(budget.precision) if budget.gradient_checkpointing else None
        with CudaRules(run.capability), autocast_flags(half):  # as layers computed again see them
            _backward(loss)
    del loss, found, extra
    done = len(recorder.recording.events)
    recorder.part = "optimizer"
    with_gradient = [p for p in trained if p.grad is not None]
    nn.utils.clip_grad_norm_(with_gradient, budget.max_grad_norm, foreach=False)
    for parameter in with_gradient:
        assert parameter.grad is not None
        parameter.grad.zero_()
    optimizer.step()
    return done


def _backward(loss: torch.Tensor) -> None:
    """Run the backward pass. Unlike torch.autograd.backward, it leaves the rules of a GPU on.

    Layers that are computed again need them.
    """
    torch.autograd.Variable._execution_engine.run_backward(
        (loss,),
        (torch.ones_like(loss),),
        False,
        False,
        (),
        allow_unreachable=True,
        accumulate_grad=True,
    )


@contextmanager
def _way_of(run: FakeRun, recorder: Recorder, batch: Mapping[str, Any]) -> Iterator[None]:
    """Context manager: decoders of packed rows attend within them, and are as if compiled."""
    if not run.packs:
        yield
        return
    is_whole = not (_has_breaks(run.method) or run.recipe.budget.gradient_checkpointing)
    with (
        packed.attending_within_rows(run.model, batch, run.length),
        as_compiled(run.model, recorder, run.stored, asks=is_whole),
    ):
        yield


def _has_breaks(method: Method) -> bool:
    """Whether the compiler divides a layer: it cannot follow how quantised weights are read."""
    base = method.info.unquantized_counterpart
    return base is not None and METHODS[base].info.reads_weights


def _evaluate(run: FakeRun, recorder: Recorder) -> None:
    recorder.part = "evaluation"
    run.model.eval()
    with torch.no_grad(), _computing(run):
        TASKS[run.recipe.task].predict(run.model, _on_gpu(run.evaluated, recorder))


@contextmanager
def _computing(run: FakeRun, *, cached: bool = True) -> Iterator[None]:
    """Context manager of forward passes, in the precision of a run and with a GPU's rules."""
    precision = run.recipe.budget.precision
    with (
        CudaRules(run.capability),
        autocast_flags(HALF.get(precision)),
        autocast(torch.device("cpu"), precision, cached=cached),
    ):
        yield


def _on_gpu(batch: Mapping[str, Any], recorder: Recorder) -> dict[str, Any]:
    """Return a batch without data. The recorder knows its whole numbers."""
    moved = dict(batch)
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            moved[name] = torch.empty(value.shape, dtype=value.dtype)
            recorder.values.learn(moved[name], value)
    return moved
