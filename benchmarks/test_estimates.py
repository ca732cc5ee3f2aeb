"""Benchmarks of the estimator: a grid of methods, models and settings measured on a GPU.

Run `pytest benchmarks/test_estimates.py -m harness -k grid -s`, and the same with `-k capped`, with
one visible GPU. Cases that are stored in `benchmarks/estimates` are not measured again, so a grid
that was cut short goes on. Environment variables: `ESTIMATES_SECONDS` ends each benchmark after so
many seconds, `ESTIMATES_FOLDER` is where results are written instead, and with `ESTIMATES_RETRY=1`
cases that have failed are measured again. `python benchmarks/estimate_predictions.py` makes the
predictions before, and `python benchmarks/estimate_comparison.py` compares.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness import need_gpu

# Warnings of the compiler and the allocator do not matter: these tests measure.
pytestmark = pytest.mark.filterwarnings("ignore")
SECONDS = {"trainer": 800.0, "cuda_graphs": 300.0, "capped": 250.0}


@pytest.fixture(scope="module")
def measuring() -> Any:
    """Return what measures cases in this process."""
    need_gpu()
    from estimate_measuring import Measuring, check_one_gpu

    from peft_methods.runs.executors.worker import set_up_compiler

    set_up_compiler()
    found = Measuring("cuda")  # before CUDA is used: it reads what the GPU holds already
    check_one_gpu()
    return found


@pytest.fixture(scope="module")
def apart() -> Any:
    """Return what measures each case in a process of its own."""
    need_gpu()
    from estimate_processes import OwnProcesses

    found = OwnProcesses("cuda")
    yield found
    found.close()


def _facts() -> dict[str, Any]:
    from peft_methods.profiling.environment import describe

    return describe("cuda")


@pytest.mark.harness
@pytest.mark.gpu
def test_grid_of_eager_steps(measuring: Any, benchmark: Any) -> None:
    """Measure the memory and the steps of every case of the `trainer` engine, in one process."""
    _measure_grid("trainer", measuring, benchmark)


@pytest.mark.harness
@pytest.mark.gpu
def test_grid_of_compiled_steps(apart: Any, benchmark: Any) -> None:
    """Measure the memory and the steps of every case of the `cuda_graphs` engine."""
    _measure_grid("cuda_graphs", apart, benchmark)


def _measure_grid(engine: str, measuring: Any, benchmark: Any) -> None:
    from estimate_comparison import compared, print_comparison
    from estimate_files import case_of, measurements, predictions
    from estimate_grid import measure_all

    predicted, facts = predictions().values, _facts()
    stored = measurements(facts["device_name"], "grid", environment=facts)
    cases = [case_of(value) for value in predicted.values()]
    own = [case for case in cases if case.engine == engine]
    arguments = own, measuring.measure, stored, SECONDS[engine]
    benchmark.pedantic(measure_all, args=arguments, rounds=1)
    rows = compared(predicted, stored.values)
    print_comparison([row for row in rows if row.case.engine == engine])
    assert any(value["status"] == "ok" for value in stored.values.values())


@pytest.mark.harness
@pytest.mark.gpu
def test_capped_memory(measuring: Any, benchmark: Any) -> None:
    """Train cases with limits of memory around the edge, and compare with what was predicted."""
    from estimate_capped import allow_on_gpu, capped, capped_cases
    from estimate_comparison import print_verdicts, verdicts
    from estimate_files import measurements, predictions
    from estimate_grid import measure_all

    predicted, facts = predictions().values, _facts()
    stored = measurements(facts["device_name"], "capped", environment=facts)

    def measure(case: Any) -> dict[str, Any]:
        return capped(measuring, case, predicted[case.key], allow_on_gpu)

    arguments = capped_cases(predicted), measure, stored, SECONDS["capped"]
    benchmark.pedantic(measure_all, args=arguments, rounds=1)
    found = verdicts(predicted, stored.values)
    print_verdicts(found)
    assert found, "no case could be measured"
