"""Compare the grid's measured steps with estimates from a probe, and fit what corrects them.

`python benchmarks/estimate_times.py PROBE.json GRID.json [--fit] [--records FOLDER]`, without a
GPU. PROBE.json is what `peft-methods estimate --probe --json` wrote on the device of the grid.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from estimate_cases import Case, recipe_and_method

from peft_methods.analysis.validation import validate
from peft_methods.estimation.connected import ProgramEstimator, from_probe
from peft_methods.estimation.time.probes import Probed, from_stored
from peft_methods.estimation.time.rates import PROBE, Corrections, corrected
from peft_methods.estimation.time.steps import StepKernels, kernels_of
from peft_methods.report.text.estimate_errors import validation_text
from peft_methods.runs.store import Store
from peft_methods.utils.errors import PeftMethodsError

OUTLIER = 0.5  # logarithm of a ratio, from which a larger error does not count for more
STEPS = (1.6, 1.25, 1.1, 1.04)  # factors by which a correction is changed in each round
MOST = 8.0  # a correction: where no case depends on one, it would run away
QUANTILES = {"median": 0.5, "90 %": 0.9, "95 %": 0.95, "largest": 1.0}


@dataclass(frozen=True)
class Measured:
    """A case's kernels, and the median seconds of its steps."""

    case: Case
    kernels: StepKernels
    seconds: float

    def error(self, probed: Probed, corrections: Corrections) -> float:
        """Return the logarithm of the expected seconds over the measured ones."""
        rates = corrected(probed.rates, corrections)
        found = self.kernels.time(rates, tf32=self.case.precision == "tf32")
        return math.log(found.seconds / self.seconds)


def measured_cases(path: Path, processes: int) -> Iterator[Measured]:
    """Yield the cases of a file of the grid that have times, with their kernels."""
    values = json.loads(path.read_text(encoding="utf-8"))["values"].values()
    timed = [value for value in values if value.get("step_seconds")]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for found in pool.imap(_measured, timed):
            if isinstance(found, str):
                print(found)
            else:
                yield found


def _measured(value: Mapping[str, Any]) -> Measured | str:
    """Return a case with its kernels, or why it has none."""
    case = Case(**value["case"])
    engine: Any = case.engine
    recipe, method = recipe_and_method(case)
    try:
        run = ProgramEstimator().memory(
            recipe, method, engine=engine, batch_size=case.rows, length=case.tokens
        )
    except PeftMethodsError as error:
        return f"{case.key}: {error}"
    seconds = statistics.median(value["step_seconds"])
    return Measured(case, kernels_of(run.program, engine), seconds)


def fitted(cases: Sequence[Measured], probed: Probed, start: Corrections) -> Corrections:
    """Return the corrections with the least mean error, found by changing one at a time."""
    best, least = start, _loss(cases, probed, start)
    for factor in STEPS:
        for name in (one.name for one in fields(Corrections)):
            for change in (factor, 1 / factor):
                while True:
                    value = getattr(best, name) * change
                    if not 1 / MOST <= value <= MOST:
                        break
                    tried = replace(best, **{name: value})
                    found = _loss(cases, probed, tried)
                    if found >= least:
                        break
                    best, least = tried, found
    return best


def _loss(cases: Sequence[Measured], probed: Probed, corrections: Corrections) -> float:
    errors = [abs(one.error(probed, corrections)) for one in cases]
    return float(np.mean(np.minimum(errors, OUTLIER)))


def print_errors(
    title: str, cases: Sequence[Measured], probed: Probed, corrections: Corrections
) -> None:
    """Print errors as shares, of all cases and of the worst."""
    found = sorted(((one.error(probed, corrections), one) for one in cases), key=_size)
    sizes = [abs(error) for error, _ in found]
    quantiles = (f"{name} {np.quantile(sizes, q):.1%}" for name, q in QUANTILES.items())
    within = np.mean(np.array(sizes) <= math.log(1.1))
    print(f"{title}: {len(found)} cases, {', '.join(quantiles)}; {within:.0%} within 10 %")
    for error, one in found[-5:]:
        print(f"  {error:+.0%} {one.case.key}: {one.seconds * 1e3:.1f} ms measured")


def _size(found: tuple[float, Measured]) -> float:
    return abs(found[0])


def print_fit(cases: Sequence[Measured], probed: Probed) -> None:
    """Print corrections from all cases, and how those from each half predict the other half."""
    names = sorted({one.case.architecture for one in cases})
    halves = [
        [one for one in cases if names.index(one.case.architecture) % 2 == at] for at in (0, 1)
    ]
    for own, other in (halves, halves[::-1]):
        if own and other:
            print_errors("other architectures", other, probed, fitted(own, probed, PROBE))
    best = fitted(cases, probed, PROBE)
    print_errors("fitted to all", cases, probed, best)
    print(", ".join(f"{name}={value:.3g}" for name, value in asdict(best).items()))


def print_records(folder: Path, probed: Probed) -> None:
    """Print the errors of whole trainings."""

    class Probes(ProgramEstimator):
        def device(self, name: str) -> Any:
            is_probed = name == probed.rates.name
            return from_probe(probed) if is_probed else super().device(name)

    records, _ = Store(folder).records()
    print(validation_text(validate(records, Probes()), 100))


def main() -> None:
    """Read the options, compare, and fit if it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("probe", type=Path)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--fit", action="store_true", help="fit the corrections")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--records", type=Path, help="a folder with records of whole trainings")
    given = parser.parse_args()
    probed = from_stored(json.loads(given.probe.read_text(encoding="utf-8")))
    cases = list(measured_cases(given.grid, given.processes))
    for engine in sorted({one.case.engine for one in cases}):
        own = [one for one in cases if one.case.engine == engine]
        print_errors(engine, own, probed, PROBE)
        if given.fit:
            print_fit(own, probed)
    if given.records is not None:
        print_records(given.records, probed)


if __name__ == "__main__":
    main()
