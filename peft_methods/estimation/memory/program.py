"""The program of a run on a GPU: load, two training steps on the longest batch, one evaluation.

It runs on tensors without data, and what it does with memory is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from peft_methods.data import synthetic
from peft_methods.data.tokenize import tokenize
from peft_methods.estimation.memory import fake_model
from peft_methods.estimation.memory.cuda_rules import CudaRules, autocast_flags
from peft_methods.estimation.memory.recorder import Recorder, Recording
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.models import loading
from peft_methods.models.config import load_config, padding_of
from peft_methods.models.padding import embedding_rows
from peft_methods.profiling.peak_memory import Owners
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.registry import TASKS
from peft_methods.training.activation_checkpointing import checkpointing
from peft_methods.training.collate import make_collator, training_collator
from peft_methods.training.precision import HALF, autocast


@dataclass(frozen=True)
class RecordedProgram:
    """What a run does with memory.

    `starts` has the first event of each phase, in order: "load", "first_step", "step", "evaluate".
    `owners` tells the parts of blocks that are alive in "step".
    """

    recording: Recording
    starts: Mapping[str, int]
    owners: Owners
    rows: int
    tokens: int
    trainable: int
    total: int


@dataclass(frozen=True)
class FakeRun:
    """A model with its method applied, batches and a mode, ready to be run without data."""

    recipe: Recipe
    method: Method
    base: loading.LoadedModel
    model: nn.Module
    batch: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    mode: FakeTensorMode


def build(recipe: Recipe, method: Method, length: int) -> FakeRun:
    """Build the model without data, apply the method, and draw batches of rows of this length.

    Raises `ModelError`, `DataError` and whatever the method raises for a model that it cannot
    train.
    """
    task, mode = TASKS[recipe.task], fake_model.fake_mode()
    spec = replace(recipe.model, weights="random")
    size, more = recipe.budget.batch_size, recipe.budget.evaluation_batch_size
    rows = replace(
        recipe.data, train=max(size, more), validation=1, test=1, max_length=length,
        token_lengths=None,
    )
    config = load_config(spec, task.head)
    texts = synthetic.draw(rows, task, embedding_rows(config), padding_of(config))
    base = loading.load(spec, task.head, texts.facts.label_names, device=loading.META)
    tokens = tokenize(texts, texts.tokenizer or base.tokenizer, rows, task, check=False).train
    base = replace(base, tokenizer=texts.tokenizer or base.tokenizer)
    kind = method.info.quantization
    if kind is not None:
        fake_model.quantize(base.model, kind, loading.DTYPES[recipe.budget.precision])
    collate = training_collator(recipe, base.tokenizer)
    context = ApplyContext(base.architecture, base.head, task.peft_type)
    model = method.apply(base.model, context)
    fake_model.without_data(model, mode)
    return FakeRun(
        recipe,
        method,
        base,
        model,
        collate([tokens[n] for n in range(size)]),
        make_collator(recipe, base.tokenizer)([tokens[n] for n in range(more)]),
        mode,
    )


def record(run: FakeRun) -> RecordedProgram:
    """Run the program and record it."""
    recorder, starts, model = Recorder(), {}, run.model
    trained = [p for p in model.parameters() if p.requires_grad]
    starts["load"] = 0
    weights = recorder.own(_weights(model))
    with run.mode, recorder:
        optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
        model.train()
        with checkpointing(model, on=run.recipe.budget.gradient_checkpointing):
            starts["first_step"] = len(recorder.recording.events)
            _step(run, recorder, trained, optimizer)
            _free_gradients(run, trained)
            starts["step"] = len(recorder.recording.events)
            done = _step(run, recorder, trained, optimizer)
            owners = _owners(recorder, weights, trained, optimizer, done)
        for parameter in trained:
            parameter.grad = None
        optimizer.state.clear()
        starts["evaluate"] = len(recorder.recording.events)
        _evaluate(run, recorder)
    counts = [p.numel() for p in trained], [p.numel() for p in model.parameters()]
    ids: torch.Tensor = run.batch["input_ids"]
    return RecordedProgram(
        recorder.recording, starts, owners, len(ids), ids.numel(), sum(counts[0]), sum(counts[1])
    )


def _step(
    run: FakeRun, recorder: Recorder, trained: Sequence[nn.Parameter], optimizer: Any
) -> int:
    """Run one training step. Return the number of events until the backward pass was done."""
    budget = run.recipe.budget
    batch = _on_gpu(run.batch)
    recorder.part = "forward"
    with _computing(budget.precision):
        found = TASKS[run.recipe.task].loss(run.model, batch)
        loss = found.mean
    extra = run.method.penalty(run.model)
    if extra is not None:
        loss = loss + extra
    recorder.part = "backward"
    with CudaRules():
        torch.autograd.backward(loss)
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


def _evaluate(run: FakeRun, recorder: Recorder) -> None:
    recorder.part = "evaluation"
    run.model.eval()
    with torch.no_grad(), _computing(run.recipe.budget.precision):
        TASKS[run.recipe.task].predict(run.model, _on_gpu(run.evaluated))


@contextmanager
def _computing(precision: str) -> Iterator[None]:
    """Context manager of forward passes, in the precision of a run and with a GPU's rules."""
    with (
        CudaRules(),
        autocast_flags(HALF.get(precision)),
        autocast(torch.device("cpu"), precision),
    ):
        yield


def _on_gpu(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: torch.empty(value.shape, dtype=value.dtype)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in batch.items()
    }


def _free_gradients(run: FakeRun, trained: Sequence[nn.Parameter]) -> None:
    if run.recipe.budget.gradient_accumulation == 1:
        for parameter in trained:
            parameter.grad = None


def _weights(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield parameters, buffers, and what belongs to quantised weights."""
    for parameter in model.parameters():
        yield parameter
        state: Any = getattr(parameter, "quant_state", None)
        while state is not None:
            yield from (v for v in vars(state).values() if isinstance(v, torch.Tensor))
            state = state.state2
    for module in model.modules():
        scales = getattr(getattr(module, "state", None), "SCB", None)
        if isinstance(scales, torch.Tensor):
            yield scales
    yield from model.buffers()


def _owners(
    recorder: Recorder,
    weights: Sequence[int],
    trained: Sequence[nn.Parameter],
    optimizer: Any,
    done: int,
) -> Owners:
    """Return the addresses of weights, optimizer state and gradients."""
    state = (v for values in optimizer.state.values() for v in values.values())
    made = {event.address: n for n, event in enumerate(recorder.recording.events) if event.size}
    gradients = [a for p in trained if p.grad is not None and (a := recorder.address_of(p.grad))]
    return Owners(
        weights=frozenset(weights),
        optimizer_state=frozenset(a for v in state if (a := recorder.address_of(v)) is not None),
        workspace=frozenset(),
        last_gradient={address: made[address] for address in gradients},
        backward_done=done,
    )
