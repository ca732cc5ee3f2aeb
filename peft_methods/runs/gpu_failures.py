"""What happens to runs whose GPU failed: they are tried elsewhere, or end if no GPU is left."""

from __future__ import annotations

from peft_methods.runs.executors.base import Executor, Handle
from peft_methods.runs.executors.devices import Resources

# A run on which so many GPUs have failed is taken for the cause.
MAX_FAILURES = 2


class GpuFailures:
    """Decide whether a failure is that of a GPU, and leave such GPUs out."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._total = executor.capacity.gpus
        self._of_run: dict[str, int] = {}
        self._last = ""

    def leave_out(self, key: str, handle: Handle, reason: str) -> bool:
        """Whether a GPU was left out because of this failure, so that its run is tried elsewhere.

        If not, the failure counts as the run's own.
        """
        if not reason or self._of_run.get(key, 0) >= MAX_FAILURES:
            return False
        if not self._executor.leave_out(handle, reason):
            return False
        self._of_run[key] = self._of_run.get(key, 0) + 1
        self._last = reason
        return True

    def reason_to_end(self, needs: Resources) -> str:
        """Return why a run can never start: too few GPUs, or too few are left. Else ''."""
        if needs.gpus > self._total:
            return (
                f"it needs {needs.gpus} GPUs, and this session uses {self._total}: "
                f"set workers = {needs.gpus}"
            )
        if not self._last or needs.gpus <= (left := self._executor.capacity.gpus):
            return ""
        there = f"only {left} {'is' if left == 1 else 'are'} left" if left else "no GPU is left"
        return f"it was not trained: {there}, and it needs {needs.gpus}. Last failure: {self._last}"
