"""The outcome of a search in words, from the `tuning` part of a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from peft_methods.profiling.metrics import METRICS
from peft_methods.tasks.metrics import Metric
from peft_methods.utils.words import counted

Tuning = Mapping[str, Any]  # `Record.tuning`


def outcome_text(tuning: Tuning) -> str:
    """Say what was chosen, its gain with the uncertainty, and the number of trials.

    The first trial has the recipe's own settings.
    """
    trials = tuning["trials"]
    failed = sum(trial["selection"] is None for trial in trials)
    if failed == len(trials):
        none = "the only trial has no" if failed == 1 else f"none of {failed} trials has a"
        return f"{none} validation score; the recipe's own settings were kept"
    return f"{_verdict(tuning)}; {_effort(tuning)}" + (f", {failed} failed" if failed else "")


def gain_text(tuning: Tuning) -> str:
    """Format the best trial's gain with its interval; empty if none was measured."""
    measured = tuning.get("confirmation")
    if not measured or measured["gain"] is None:
        return ""
    metric = METRICS[tuning["select_by"]]
    unit = " points" if metric.is_share else ""
    gain, low, high = (_signed(metric, measured[name]) for name in ("gain", "low", "high"))
    return f"{gain}{unit}, 90 % interval {low} to {high}"


def _signed(metric: Metric, value: float) -> str:
    written = metric.unit.number(abs(value), metric.unit.decimals)
    is_zero = not any(digit in written for digit in "123456789")
    return f"{'+' if value >= 0 or is_zero else '-'}{written}"


def _verdict(tuning: Tuning) -> str:
    own, chosen = tuning["trials"][0]["settings"], tuning["chosen"]
    if "confirmation" not in tuning:  # a record of an earlier version, which measured none
        changes = changes_text(own, chosen)
        return f"{changes}, gain not measured" if changes else "the recipe's own settings were kept"
    measured = tuning["confirmation"]
    if measured is None:
        return "no trial was better than the recipe's own settings"
    changes = changes_text(own, measured["settings"])
    runs = f"{counted(len(measured['seeds']), 'new seed')} of {_epochs(measured)}"
    metric = METRICS[tuning["select_by"]].in_text
    if measured["gain"] is None:
        if measured["replaced"]:
            return (
                f"{changes}, since the recipe's own settings gave no validation score with {runs}"
            )
        return (
            f"the recipe's own settings were kept: not every run of {runs} gave a validation score "
            f"to compare {changes}"
        )
    gain = f"validation {metric} {gain_text(tuning)}, {runs}"
    if measured["replaced"]:
        return f"{changes} ({gain})"
    return (
        f"no setting beat the recipe's own beyond chance, so these were kept; best of the trials: "
        f"{changes} ({gain})"
    )


def changes_text(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Format the settings that differ: 'learning_rate 0.002 → 0.004'."""
    return ", ".join(
        f"{name} {_formatted(own[name])} → {_formatted(value)}"
        for name, value in other.items()
        if value != own[name]
    )


def _effort(tuning: Tuning) -> str:
    trials = len(tuning["trials"])
    every = math.prod(len(values) for values in tuning["grid"].values()) == trials
    return f"{counted(trials, 'trial')} of {_epochs(tuning)}" + ", the whole grid" * every


def _epochs(part: Mapping[str, Any]) -> str:
    return counted(part["epochs"], "epoch")


def _formatted(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
