"""A metric of several methods compared with a baseline: figures of two real sessions."""

from __future__ import annotations

import numpy as np

from peft_methods.analysis.metric_comparison import Runs, compare, family_of
from peft_methods.analysis.tolerances import default_tolerances

# Seconds of training of the recipe `embedded`, seeds 0 to 2, in two sessions on NVIDIA H200 of
# 2026-11-29 with the same code. The calibration loop took 0.034 s in every run.
TWO_SESSIONS = {
    "full": ((0.256, 0.257, 0.256), (0.257, 0.257, 0.256)),
    "bitfit": ((0.181, 0.181, 0.182), (0.181, 0.189, 0.191)),
    "lora": ((0.219, 0.214, 0.214), (0.227, 0.236, 0.235)),
    "qlora": ((0.268, 0.272, 0.271), (0.272, 0.279, 0.281)),
    "ia3": ((0.177, 0.175, 0.176), (0.201, 0.204, 0.215)),
    "adapter": ((0.201, 0.195, 0.196), (0.204, 0.243, 0.202)),
    "adapter_fusion": ((0.345, 0.345, 0.346), (0.348, 0.350, 0.353)),
}
PACE = np.array([0.0341, 0.0342, 0.0341])


def failing(slower: dict[str, float]) -> set[str]:
    """Return the methods that fail if some take longer by a factor in the second session."""
    before = {name: [Runs(np.array(first), PACE)] for name, (first, _) in TWO_SESSIONS.items()}
    now = {
        name: Runs(np.array(second) * slower.get(name, 1.0), PACE[::-1])
        for name, (_, second) in TWO_SESSIONS.items()
    }
    (time,) = [one for one in default_tolerances("accuracy") if one.metric == "train_seconds"]
    one = compare(time, before, now, family_of("train_seconds", ["train_seconds"], len(now)))
    assert one.by_pace  # the pace is used, and hides nothing
    judged = {name: (one.of_method(name), one.relative(name)) for name in now}
    return {
        name
        for name, changes in judged.items()
        if any(change is not None and bool(change.fails(time)) for change in changes)
    }


def test_unchanged_session_on_another_gpu_of_its_kind_does_not_fail() -> None:
    """IA3 took 17 % longer at the same pace, which failed before."""
    assert failing({}) == set()


def test_method_that_takes_half_longer_fails() -> None:
    assert failing({"full": 1.5}) == {"full"}
