"""Does a run fit? Cases are trained while torch may reserve only so many bytes, near the edge.

The limit is that of torch's allocator (`set_per_process_memory_fraction`). A GPU of this size has
the CUDA context and the code of libraries beside it: they are measured with the uncapped run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from estimate_cases import Case
from estimate_files import case_of
from estimate_measuring import LoadedCase, Measuring

from peft_methods.methods.registry import METHODS
from peft_methods.runs.isolation.memory import free_all
from peft_methods.utils.errors import OutOfMemory, first_line

CASES = 17  # one for each architecture
SEARCHED = 3  # runs that halve the range in which the edge is
BEYOND = 0.001  # how far beyond the end of an interval a limit is
LARGEST = 40 * 2**30  # bytes of a case's predicted peak: larger ones take long


@dataclass(frozen=True)
class CappedRun:
    """A warm-up and an evaluation with a limit, in bytes (None: without).

    `held_bytes` were allocated before: the same in all runs of a case.
    """

    limit: int | None
    fitted: bool
    held_bytes: int = 0
    reserved_bytes: int | None = None
    device_bytes: int | None = None


class Bench(Protocol):
    """Runs one case with a limit in bytes; None: without."""

    def __call__(self, limit: int | None) -> CappedRun:
        """Run the case."""


def capped_cases(predictions: Mapping[str, Mapping[str, Any]]) -> list[Case]:
    """Return the first case of each architecture that has a prediction of a moderate size."""
    found: dict[str, Case] = {}
    for value in predictions.values():
        case = case_of(value)
        peak = value["memory"]["phases"]["train"] if "memory" in value else LARGEST
        stores = METHODS[case.method].info.stores_features
        if case.engine == "trainer" and peak < LARGEST and not stores:
            found.setdefault(case.architecture, case)
    return list(found.values())[:CASES]


def edge_runs(bench: Bench, memory: Mapping[str, Any]) -> list[CappedRun]:
    """Run a case without a limit, with limits around the predicted edge, and towards the real one.

    `memory` is the predicted one. Limits are beyond both ends of what is needed, where the answers
    are "yes" and "no", and at the expected reserved bytes. Further ones halve the range between
    the highest limit that was too low and the lowest that was enough.
    """
    free = bench(None)
    if not free.fitted:
        return [free]
    beside = _context(free, memory)
    low, high = memory["device"]["low"] - beside, memory["device"]["high"] - beside
    planned = (low * (1 - BEYOND), memory["reserved"]["expected"], high * (1 + BEYOND))
    runs = [free, *(bench(int(limit)) for limit in planned if limit > 0)]
    for _ in range(SEARCHED):
        fitted = [one.limit for one in runs if one.fitted and one.limit is not None]
        failed = [one.limit for one in runs if not one.fitted and one.limit is not None]
        if not fitted or not failed or min(fitted) <= max(failed):
            break
        runs.append(bench((min(fitted) + max(failed)) // 2))
    return runs


def _context(free: CappedRun, memory: Mapping[str, Any]) -> float:
    """Return the bytes beside those that torch reserves: measured, or as predicted."""
    if free.device_bytes is not None and free.reserved_bytes is not None:
        return free.device_bytes - free.reserved_bytes
    return float(memory["device"]["expected"] - memory["reserved"]["expected"])


def capped(
    measuring: Measuring,
    case: Case,
    prediction: Mapping[str, Any],
    allow: Callable[[int | None], None],
) -> dict[str, Any]:
    """Return the runs of a case with limits, as JSON values. `allow` sets torch's limit."""
    started = time.perf_counter()
    made: list[CappedRun] = []
    found: dict[str, Any] = {"case": case.to_json(), "status": "ok"}
    try:
        _run_all(measuring, case, prediction, allow, made)
    except Exception as error:  # a failing case never ends the others
        found |= {"status": "failed", "message": first_line(error)}
    found |= {"runs": [asdict(one) for one in made], "device_failed": measuring.end()}
    return found | {"left": measuring.left, "seconds": round(time.perf_counter() - started, 2)}


def _run_all(
    measuring: Measuring,
    case: Case,
    prediction: Mapping[str, Any],
    allow: Callable[[int | None], None],
    made: list[CappedRun],
) -> None:
    """Run a case with each limit, and append the runs to `made`."""
    profiler = measuring.profiler()
    with profiler.running(), measuring.loaded(case, profiler) as ready:
        profiler.enter(None)

        def bench(limit: int | None) -> CappedRun:
            allow(limit)
            try:
                made.append(_run(measuring, ready, limit))
            finally:
                allow(None)
                ready.job.model.zero_grad(set_to_none=True)
                free_all()
            return made[-1]

        edge_runs(bench, prediction["memory"])


def _run(measuring: Measuring, ready: LoadedCase, limit: int | None) -> CappedRun:
    """Run a warm-up and an evaluation, as at the start of a training."""
    profiler, held = measuring.profiler(), torch.cuda.memory_allocated()
    try:
        with profiler.running():
            with ready.trainer(profiler) as trainer:
                ready.warm_up(trainer, profiler)
                ready.evaluate(profiler)
            profiler.enter(None)
    except OutOfMemory:
        return CappedRun(limit, False, held)
    highest = {
        sensor: profiler.meter.highest(sensor, "warm_up", "evaluate")
        for sensor in ("reserved", "device")
    }
    sizes = {name: None if size is None else int(size) for name, size in highest.items()}
    return CappedRun(limit, True, held, sizes["reserved"], sizes["device"])


def allow_on_gpu(limit: int | None) -> None:
    """Let torch reserve at most so many bytes on the GPU; None: all that there are."""
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(1.0 if limit is None else min(1.0, limit / total))
