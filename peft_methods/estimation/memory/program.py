"""The program of a run on a GPU: load, a training step on the longest batch, one evaluation.

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
from peft_methods.data.token_rows import TokenRow, TokenRows
from peft_methods.data.tokenize import tokenize
from peft_methods.estimation.memory import fake_model, packed
from peft_methods.estimation.memory.compiled import as_compiled
from peft_methods.estimation.memory.cuda_rules import AMPERE, CudaRules, autocast_flags
from peft_methods.estimation.memory.owners import owners_of, weights_of
from peft_methods.estimation.memory.recorder import Recorder, Recording
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.models import loading
from peft_methods.models.config import load_config, padding_of
from peft_methods.models.padding import embedding_rows
from peft_methods.profiling.peak_memory import Owners
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.collate import model_inputs
from peft_methods.tasks.registry import TASKS
from peft_methods.training.activation_checkpointing import checkpointing
from peft_methods.training.collate import make_collator, training_collator
from peft_methods.training.precision import HALF, autocast
from peft_methods.utils.errors import ModelError

DRAWN_ROWS = 8  # of tokens: a batch has them again and again
LEAST_TOKENS = 128  # of the rows from which a method starts
MOST_DRAWN = 500_000_000  # parameters: 2 GB


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
    length: int
    packs: bool = False
    capability: tuple[int, int] = AMPERE


def build(
    recipe: Recipe,
    method: Method,
    length: int,
    *,
    packs: bool = False,
    capability: tuple[int, int] = AMPERE,
) -> FakeRun:
    """Build the model without data, apply the method, and draw batches of rows of this length.

    `packs`: the rows of a decoder are packed, and its layers compiled. `capability` is the compute
    capability of the GPU. Raises `ModelError`, `DataError` and whatever the method raises for a
    model that it cannot train.
    """
    task, mode = TASKS[recipe.task], fake_model.fake_mode()
    spec = replace(recipe.model, weights="random")
    size, more = recipe.budget.batch_size, recipe.budget.evaluation_batch_size
    rows = replace(
        recipe.data,
        train=min(max(size, more), DRAWN_ROWS),
        validation=1,
        test=1,
        max_length=length,
        token_lengths=None,
    )
    config = load_config(spec, task.head)
    end = config.eos_token_id if config.is_encoder_decoder else None
    texts = synthetic.draw(rows, task, embedding_rows(config), padding_of(config), end)
    base = loading.load(spec, task.head, texts.facts.label_names, device=loading.META)
    tokens = tokenize(texts, texts.tokenizer or base.tokenizer, rows, task, check=False).train
    tokenizer = texts.tokenizer or base.tokenizer
    if packs:
        batch = packed.packed_batch(make_collator(recipe, tokenizer), tokens, size)
    else:
        batch = training_collator(recipe, tokenizer)(_repeated(tokens, size))
    evaluated = make_collator(recipe, tokenizer)(_repeated(tokens, more))
    few = {name: value[:2, :LEAST_TOKENS] for name, value in model_inputs(evaluated).items()}
    base, model = _with_method(recipe, method, base, texts.facts.label_names, few)
    base.model.config.use_cache = False  # as the Trainer sets it
    fake_model.without_data(model, mode, has_outliers=recipe.model.weights == "pretrained")
    return FakeRun(recipe, method, base, model, batch, evaluated, mode, length, packs, capability)


def _repeated(rows: TokenRows, count: int) -> list[TokenRow]:
    """Return so many rows: those there are, again and again."""
    return [rows[n % len(rows)] for n in range(count)]


def _with_method(
    recipe: Recipe,
    method: Method,
    base: loading.LoadedModel,
    names: tuple[str, ...],
    rows: Mapping[str, Any],
) -> tuple[loading.LoadedModel, nn.Module]:
    """Return the base model, on the meta device, and the same with the method applied.

    How a few methods start depends on the values of weights: theirs are drawn where the model is
    small. Raises `ModelError` where it is not.
    """
    task, kind, spec = TASKS[recipe.task], method.info.quantization, recipe.model
    size = sum(p.numel() for p in base.model.parameters())
    wanted = {"quantization": kind, "precision": recipe.budget.precision}

    def drawn(**options: Any) -> loading.LoadedModel:
        if size > MOST_DRAWN:
            raise ModelError(
                f"{method.title} starts from the values of the weights, which an estimate does not "
                f"have: there is none for a model of more than {MOST_DRAWN / 1e6:,.0f} million "
                f"parameters",
                setting="model.source",
            )
        return loading.load(replace(spec, weights="random"), task.head, names, **options)

    def context(of: loading.LoadedModel) -> ApplyContext:
        return ApplyContext(
            of.architecture,
            of.head,
            task.peft_type,
            unquantized=lambda: drawn().model,
            train_batches=lambda _: [rows],
        )

    try:
        if kind is not None:
            fake_model.quantize(base.model, kind, loading.DTYPES[recipe.budget.precision])
        return base, method.apply(base.model, context(base))
    except (NotImplementedError, RuntimeError, IndexError):
        real = drawn(**wanted)
        return real, method.apply(real.model, context(real))


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
            embeddings=packed.is_in_16_bits(run.recipe.model, model),
        )
        weights = [*recorder.own(weights_of(model)), *weights]
    starts["step"] = len(recorder.recording.events)
    with run.mode, recorder:
        optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
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
    sizes = [p.numel() for p in model.parameters()]
    ids: torch.Tensor = run.batch["input_ids"]
    return RecordedProgram(
        recorder.recording,
        starts,
        owners,
        len(run.batch["labels"]) if run.packs else len(ids),
        ids.numel(),
        sum(p.numel() for p in trained),
        sum(sizes),
    )


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _step(run: FakeRun, recorder: Recorder, trained: Sequence[nn.Parameter], optimizer: Any) -> int:
    """Run one training step. Return the number of events until the backward pass was done."""
    budget = run.recipe.budget
    batch = _on_gpu(run.batch, recorder)
    recorder.part = "forward"
    with _computing(run, cached=not run.packs), _way_of(run, recorder, batch):
        found = TASKS[run.recipe.task].loss(run.model, batch)
        loss = found.mean
    extra = run.method.penalty(run.model)
    if extra is not None:
        loss = loss + extra
    recorder.part = "backward"
    with CudaRules(run.capability):
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
    with (
        packed.attending_within_rows(run.model, batch, run.length),
        as_compiled(run.model, recorder),
    ):
        yield


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
