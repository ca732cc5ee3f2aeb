"""Noise that the regression check assumes where a baseline does not measure it.

The figures are conventions, not measurements: docs/how-to/regression-check.md states them, and a
baseline of several sessions replaces them. How much the machine's pace varies is not assumed but
measured by the pace's own repetitions within the sessions of the baseline.
"""

from __future__ import annotations

from peft_methods.analysis.noise import Assumed
from peft_methods.analysis.samples import Array
from peft_methods.analysis.tolerances import Tolerance
from peft_methods.profiling.metrics import COST_METRICS, METRICS
from peft_methods.tasks.metrics import BYTES

TIME = Assumed(drift=0.05, seeds=0.02)  # relative; also of energy and throughput
DRIFT_BY_PACE = 0.02  # relative: what is left of it in all methods after division by the pace
MEMORY = Assumed(drift=0.0, seeds=0.01)  # relative
SIZE = Assumed(drift=0.0, seeds=0.0)  # figures such as the number of trainable parameters
QUALITY_SPREAD = 0.03  # between seeds, of a share: three points
OWN_DRIFT = (0.05**2 - DRIFT_BY_PACE**2) ** 0.5  # relative: with DRIFT_BY_PACE, that of TIME
NEARLY_FIXED = 0.25  # weight of memory and sizes in the error rate, where other metrics have 1
COSTS = frozenset(metric.name for metric in COST_METRICS)
BY_PACE = {
    "train_seconds": -1,
    "step_median_seconds": -1,
    "step_p95_seconds": -1,
    "samples_per_second": 1,
    "tokens_per_second": 1,
}  # metrics of the training itself, and the power of the pace that they are multiplied by


def assumed_noise(tolerance: Tolerance, level: float) -> Assumed:
    """Return the noise to assume for a metric, in the tolerance's unit.

    `level` is the metric's mean in the baseline. The spread of a quality metric that is no share is
    unknown.
    """
    metric = METRICS[tolerance.metric]
    if tolerance.metric not in COSTS:
        spread = QUALITY_SPREAD if metric.is_share else None
        if spread is not None and tolerance.relative:
            spread = spread / abs(level) if level else None
        return Assumed(0.0, spread)
    if not metric.device_dependent:
        return SIZE
    noise = MEMORY if metric.unit == BYTES else TIME
    scale = 1.0 if tolerance.relative else abs(level)
    return Assumed(noise.drift * scale, (noise.seeds or 0.0) * scale)


def noise_by_pace(pace_variance: Array) -> Assumed:
    """Return the noise to assume for times divided by the pace; relative.

    The pace shows what all methods share. A method alone drifts as much as without it: between two
    sessions of one kind of GPU with the same pace, single methods differed by up to 17 %.

    `pace_variance` (...): relative variance of the pace between the runs of a session.
    """
    seeds = ((TIME.seeds or 0.0) ** 2 + pace_variance) ** 0.5
    return Assumed(DRIFT_BY_PACE, seeds, residual=OWN_DRIFT)


def drifts(metric: str) -> bool:
    """Whether a metric moves from one session of a machine to the next, as times do."""
    fixed = METRICS[metric].unit == BYTES or not METRICS[metric].device_dependent
    return metric in COSTS and not fixed


def weight(metric: str) -> float:
    """Return a metric's weight in the error rate; what hardly varies needs little of it."""
    return 1.0 if metric not in COSTS or drifts(metric) else NEARLY_FIXED
