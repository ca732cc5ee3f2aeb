"""Checks of recipes: data and model are read by a worker before any run starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.executors.base import Ended, Executor, Handle, Lost
from peft_methods.runs.executors.jobs import Failure, PrepareJob, RunJob
from peft_methods.runs.prepared import NO_ENGINES, PreparedRecipe
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.timeouts import Timeouts
from peft_methods.utils.errors import DataError, PreparationTimedOut


@dataclass(frozen=True)
class RecipeChecks:
    """Check recipes one at a time. A transient failure is retried `retries` times at once."""

    executor: Executor
    requests: RunRequests
    timeouts: Timeouts
    retries: int

    def prepare(
        self,
        recipe: Recipe,
        methods: Sequence[Method],
        first: Sequence[RunJob] = (),
        engines: Mapping[str, str] = NO_ENGINES,
    ) -> PreparedRecipe:
        """Check a recipe. Raises `DataError`.

        `first` are the jobs that will probably be the first to run; they are prefetched meanwhile.
        The methods that have one of the `engines` are predicted.
        """
        job = self.requests.prepare_job(recipe, methods, engines)
        result = self._attempt(job, first)
        for _ in range(self.retries):
            if isinstance(result, Failure) and result.may_pass:
                self.executor.drop_prefetched()  # its memory may have been the cause
                result = self._attempt(job, ())
        if isinstance(result, Failure):
            details = "" if result.by_user else f" (details: {job.log})"
            raise DataError(f"{result.message}{details}", setting=result.setting)
        return result

    def _attempt(self, job: PrepareJob, first: Sequence[RunJob]) -> PreparedRecipe | Failure:
        """Make one attempt, and another if its GPU failed. Raises `PreparationTimedOut`."""
        handle = self.executor.start(job)
        self.timeouts.begin(handle)
        self.executor.prefetch(first)
        try:
            result = self._result(job, handle)
            failed = result.gpu_failure if isinstance(result, Failure) else ""
            is_left_out = bool(failed and self.executor.leave_out(handle, failed))
        finally:
            self.timeouts.end(handle)
            self.executor.kill(handle)
        if is_left_out and self.executor.capacity.gpus:
            return self._attempt(job, ())
        return result

    def _result(self, job: PrepareJob, handle: Handle) -> PreparedRecipe | Failure:
        """Wait for the result of a check. Raises `PreparationTimedOut`."""
        failed = f"recipe {job.recipe.name!r} could not be prepared"
        while True:
            for event in self.timeouts.poll(self.executor):
                if isinstance(event, Ended):
                    result = event.done.result
                    assert isinstance(result, PreparedRecipe | Failure)
                    return result
                if isinstance(event, Lost):
                    reason = f"{failed}: {event.reason}."
                    gpu_failure = event.gpu_failure
                    return Failure(reason, False, event.transient, gpu_failure=gpu_failure)
            if handle in self.timeouts.expired():
                message, stacks = self.timeouts.describe(self.executor, handle)
                raise PreparationTimedOut(f"{failed}: {message}.", stacks)
