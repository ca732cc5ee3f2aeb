"""Measure the cases of the grid: a run's own load, warm-up, steps and evaluation, in one process.

The peak is that of the warm-up and of the steps, as records have it in `peak_memory_bytes`. A model
is made on the device itself: its weights are random, and drawing billions on the host takes long.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from estimate_cases import Case, recipe_and_method
from transformers import PrinterCallback, TrainerCallback

from observers import synchronize
from peft_methods.data.facts import TextData, TokenData
from peft_methods.models import loading
from peft_methods.profiling.profiler import Profiler
from peft_methods.runs.apply_context import context_of
from peft_methods.runs.isolation.process import RunProcess
from peft_methods.runs.prepare import load
from peft_methods.runs.spec import RunSpec
from peft_methods.training.activation_checkpointing import checkpointing
from peft_methods.training.collate import make_collator
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.engine import TrainingJob, check_budget
from peft_methods.training.evaluation import predict
from peft_methods.training.precision import set_matmul_precision
from peft_methods.training.trainer.after_step import AfterStep
from peft_methods.training.trainer.loop import RunTrainer, trainer_arguments
from peft_methods.training.trainer.warm_up import warm_up
from peft_methods.utils.errors import EngineUnfit, OutOfMemory, first_line

TRAINERS: dict[str, type[RunTrainer]] = {"trainer": RunTrainer, "cuda_graphs": CudaGraphsTrainer}
TIMED_STEPS = 5
MOST_SECONDS = 5.0  # of the timed steps: slow ones are fewer
THREADS = 4
CASE_SECONDS = {"trainer": 60.0, "cuda_graphs": 150.0}  # a case that takes longer has failed


def check_one_gpu() -> None:
    """Raise `RuntimeError` if several GPUs are visible: the Trainer would divide its batches."""
    if torch.cuda.device_count() > 1:
        raise RuntimeError("several GPUs are visible: set CUDA_VISIBLE_DEVICES=0")


class TimedSteps(TrainerCallback):
    """Trainer callback: the seconds between the ends of steps, the device idle at each."""

    def __init__(self, profiler: Profiler, device: str) -> None:
        self._profiler, self._device = profiler, device
        self._ends: list[float] = []

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._profiler.enter("train")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        synchronize(self._device)
        self._ends.append(time.perf_counter())
        if len(self._ends) > 1 and self._ends[-1] - self._ends[0] > MOST_SECONDS:
            control.should_training_stop = True

    @property
    def seconds(self) -> list[float]:
        """The seconds of each step but the first."""
        return [b - a for a, b in zip(self._ends, self._ends[1:], strict=False)]


@dataclass
class LoadedCase:
    """A run that is ready to train: its model, on its device, with the method applied."""

    job: TrainingJob
    engine: str

    @contextmanager
    def trainer(self, profiler: Profiler) -> Iterator[RunTrainer]:
        """Context manager: the engine's trainer, with weights as it holds them."""
        job, kind = self.job, TRAINERS[self.engine]
        budget = job.recipe.budget
        set_matmul_precision(budget.precision)
        arguments = trainer_arguments(job, autocast=kind.autocasts)
        arguments.max_steps = TIMED_STEPS + 1
        trainer = kind(job, arguments, profiler)
        trainer.remove_callback(PrinterCallback)
        if job.method.acts_after_steps():
            trainer.add_callback(AfterStep(job))
        with checkpointing(job.model, on=budget.gradient_checkpointing), trainer.holding_weights():
            yield trainer

    def warm_up(self, trainer: RunTrainer, profiler: Profiler) -> None:
        """Run the two steps of the warm-up, the second of which is the peak step."""
        profiler.enter("warm_up")
        with trainer.warming_up() as collate:
            warm_up(trainer, collate, profiler)

    def evaluate(self, profiler: Profiler) -> None:
        """Evaluate one batch, the validation rows."""
        job, budget = self.job, self.job.recipe.budget
        profiler.enter("evaluate")
        predict(
            job.task,
            job.model,
            job.data.validation,
            make_collator(job.recipe, job.tokenizer),
            budget.evaluation_batch_size,
            precision=budget.precision,
        )


class Measuring:
    """Measures one case after another in this process, which it leaves as it was."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._process = RunProcess()
        self.profiler()  # reads what the GPU holds before this process uses it
        self.left: list[str] = []  # what the last case has left behind

    def measure(self, case: Case) -> dict[str, Any]:
        """Return a case's memory in bytes and its steps in seconds, or why it failed."""
        started = time.perf_counter()
        found: dict[str, Any] = {"case": case.to_json(), "memory_left": list(self.left)}
        profiler: Profiler | None = None
        try:
            profiler = self.profiler()
            found["step_seconds"] = self._trained(case, profiler)
            found["status"] = "ok"
        except OutOfMemory as error:
            found |= {"status": "oom", "message": first_line(error)}
        except Exception as error:  # a failing case never ends the grid
            found |= {"status": _kind(error), "message": _message(error)}
        if profiler is not None:
            found |= _measured(profiler)
            del profiler
        found["device_failed"] = self.end()
        return found | {"left": self.left, "seconds": round(time.perf_counter() - started, 2)}

    def _trained(self, case: Case, profiler: Profiler) -> list[float]:
        """Load, warm up, train a few steps and evaluate. Return the seconds of the steps."""
        with profiler.running(), self.loaded(case, profiler) as ready:
            with ready.trainer(profiler) as trainer:
                ready.warm_up(trainer, profiler)
                trainer.add_callback(timed := TimedSteps(profiler, self.device))
                trainer.train()
                ready.evaluate(profiler)
            profiler.enter(None)
            return timed.seconds

    def profiler(self) -> Profiler:
        """Return what measures one run."""
        return Profiler(self.device, lambda _: None, 1, None, self._process.kept.gpu_levels)

    def end(self) -> str:
        """Free everything. Return why the device cannot be used any more, if it cannot."""
        try:
            synchronize(self.device)
            self.left = self._process.end()
        except RuntimeError as error:
            return _message(error)
        return ""

    @contextmanager
    def loaded(self, case: Case, profiler: Profiler) -> Iterator[LoadedCase]:
        """Context manager: the model of a case is on the device, and nothing else is.

        Raises `TimeoutError` within if the case takes too long.
        """
        recipe, method = recipe_and_method(case)
        run = RunSpec(recipe, method, 0, self.device, case.engine)
        self._process.begin(run, THREADS)
        with time_limit(CASE_SECONDS[case.engine]), tempfile.TemporaryDirectory() as folder:
            profiler.enter("data")
            texts = self._process.kept.texts(run)
            profiler.enter("load")
            profiler.meter.set_base_level()
            yield LoadedCase(self._job(run, texts, profiler, Path(folder)), case.engine)

    def _job(self, run: RunSpec, texts: TextData, profiler: Profiler, folder: Path) -> TrainingJob:
        """Load the model, apply the method and tokenize the rows, as a run does."""
        kept = self._process.kept
        with drawn_on(self.device):
            base = load(run, texts, self.device)

        def tokens() -> TokenData:
            return kept.tokens(run, base.tokenizer, base.tokenizer_sha256)

        context = context_of(run, base, texts.facts.label_names, (), tokens)
        model = run.method.apply(base.model, context)
        profiler.enter("tokenize")
        check_budget(run.recipe.budget, model, self.device)
        rows = tokens()
        if self.device != "cpu":
            torch.cuda.empty_cache()  # what drawing and quantising took, which no run has
        return TrainingJob(
            model,
            run.method,
            rows,
            run.recipe,
            base.tokenizer,
            base.head,
            run.seed,
            self.device,
            folder,
        )


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Context manager: raise `TimeoutError` in the main thread after so many seconds.

    It is raised again every second: the first one may be swallowed, by a destructor for example.
    """

    def stop(*_: object) -> None:
        raise TimeoutError(f"it takes more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def drawn_on(device: str) -> Iterator[None]:
    """Context manager: random weights are drawn on this device, not on the host."""
    draw = loading._draw

    def drawn(*given: Any) -> Any:
        with torch.device(device):
            return draw(*given)

    loading._draw = drawn  # type: ignore[assignment]
    try:
        yield
    finally:
        loading._draw = draw


def _kind(error: Exception) -> str:
    return "unfit" if isinstance(error, EngineUnfit) else "failed"


def _message(error: Exception) -> str:
    return str(first_line(error))


def _measured(profiler: Profiler) -> dict[str, Any]:
    """Return what was measured up to the end, or up to the failure."""
    meter = profiler.meter
    phases = {one.phase: 0.0 for one in meter.intervals}
    for one in meter.intervals:
        phases[one.phase] = round(phases[one.phase] + one.seconds, 3)
    return {
        "memory": {
            name: value
            for name, value in profiler.metrics().items()
            if name.endswith("_bytes") and value is not None
        },
        "memory_before_bytes": meter.level_before if profiler.cuda else None,
        "phase_seconds": phases,
        "device_memory_kind": profiler.environment()["device_memory_kind"],
    }
