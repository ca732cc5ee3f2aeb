"""Predict every case of the grid on a CPU: `python benchmarks/estimate_predictions.py`.

It takes some seconds a case, and continues where it was stopped. Predictions come before the
measurements: those of cases that are stored already are made again only with `--again`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import asdict
from typing import Any

from estimate_cases import Case, recipe_and_method
from estimate_design import compiled_cases, eager_cases
from estimate_files import case_of, predictions

from peft_methods.estimation.connected import default_estimator
from peft_methods.estimation.question import DEVICE
from peft_methods.profiling.environment import package_versions, source_state
from peft_methods.training.registry import engine_of
from peft_methods.utils.errors import first_line

GPU = "H200"  # whose published figures the times are from


def prediction(case: Case) -> dict[str, Any]:
    """Return what the estimator says, as JSON values: bytes and seconds, or why it says nothing."""
    started = time.perf_counter()
    try:
        found = _estimated(case)
    except Exception as error:  # whatever a method or a library raises is the result
        found = {"refused": first_line(error)}
    return {"case": case.to_json(), **found, "seconds": round(time.perf_counter() - started, 2)}


def _estimated(case: Case) -> dict[str, Any]:
    recipe, method = recipe_and_method(case)
    estimator = default_estimator()
    assert DEVICE in engine_of(case.engine).devices
    run = estimator.memory(
        recipe, method, engine=case.engine, batch_size=case.rows, length=case.tokens
    )
    step = estimator.step(run.program, estimator.device(GPU), recipe=recipe, engine=case.engine)
    return {
        "memory": asdict(run.memory),
        "step_seconds": asdict(step.seconds),
        "trainable": run.trainable,
        "total": run.total,
    }


def cases() -> list[Case]:
    """Return all cases in the order of measuring: eager steps, then compiled ones."""
    return [*eager_cases(), *compiled_cases()]


def predict_all(processes: int, seconds: float, *, again: bool, only: str) -> None:
    """Predict cases that have no prediction yet, with `again` all, and stop after so many seconds.

    `only` is a part of their keys.
    """
    facts = {"gpu": GPU, "packages": package_versions(), "source": source_state()}
    stored = predictions(**facts)
    if not stored.values:
        for case in cases():
            stored.values[case.key] = {"case": case.to_json()}
    todo = [
        case_of(value)
        for key, value in stored.values.items()
        if only in key and (again or set(value) == {"case"})
    ]
    end = time.monotonic() + seconds
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for number, found in enumerate(pool.imap(prediction, todo), 1):
            key = case_of(found).key
            stored.put(key, found)
            peak = (
                f"{found['memory']['phases']['train'] / 2**20:,.0f} MiB"
                if "memory" in found
                else ""
            )
            print(f"{number}/{len(todo)} {key}: {peak or found['refused']}", flush=True)
            if time.monotonic() > end:
                pool.terminate()
                break


def main() -> None:
    """Read the options and predict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--again", action="store_true", help="predict all cases again")
    parser.add_argument("--only", default="", help="cases with this in their keys, such as /nf4/")
    given = parser.parse_args()
    predict_all(given.processes, given.seconds, again=given.again, only=given.only)


if __name__ == "__main__":
    main()
