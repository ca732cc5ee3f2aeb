"""Noise that the regression check assumes where a baseline does not measure it.

A session of a machine takes about 5 % longer or shorter than another (standard deviation), which
docs/how-to/regression-check.md bases on measurements; after division by the machine's pace, less.
"""

from __future__ import annotations

from peft_methods.analysis.noise import Assumed
from peft_methods.analysis.tolerances import Tolerance
from peft_methods.profiling.metrics import COST_METRICS, METRICS
from peft_methods.tasks.metrics import BYTES

TIME = Assumed(drift=0.05, seeds=0.02)  # relative; also of energy and throughput
TIME_BY_PACE = Assumed(drift=0.02, seeds=0.05)  # the pace itself is measured in a moment
MEMORY = Assumed(drift=0.0, seeds=0.01)  # relative
SIZE = Assumed(drift=0.0, seeds=0.0)  # figures such as the number of trainable parameters
QUALITY_SPREAD = 0.03  # between seeds, of a share: three points
COSTS = frozenset(metric.name for metric in COST_METRICS)
BY_PACE = {
    "train_seconds": -1,
    "step_median_seconds": -1,
    "step_p95_seconds": -1,
    "samples_per_second": 1,
    "tokens_per_second": 1,
}  # metrics of the training itself, and the power of the pace that they are multiplied by


def assumed_noise(tolerance: Tolerance, *, by_pace: bool, level: float) -> Assumed:
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
    noise = MEMORY if metric.unit == BYTES else TIME_BY_PACE if by_pace else TIME
    scale = 1.0 if tolerance.relative else abs(level)
    return Assumed(noise.drift * scale, (noise.seeds or 0.0) * scale)
