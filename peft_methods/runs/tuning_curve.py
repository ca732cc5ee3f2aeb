"""The best validation score to expect from fewer trials than were run.

With more trials the best score rises, so a result without their number says little (Dodge et al.,
"Show Your Work! Improved Reporting of Experimental Results", EMNLP 2019, arXiv:1909.03004). Dodge
et al. draw n of the N trials with replacement, which is biased downwards (Tang et al., "Showing
Your Work Doesn't Always Work", ACL 2020, arXiv:2004.13705). Here they are drawn without. The order
of the trials counts as random, though the first has the recipe's own settings and Optuna learns
from earlier trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_methods.profiling.metrics import METRICS
from peft_methods.tasks.metrics import Metric


def expected_best(scores: Sequence[float], sign: int = 1) -> list[float]:
    """Return the expected best of n of the N scores, for n from 1 to N. `sign` -1: low is good.

    The score in place i (from 0, in ascending order) is the best of n with probability
    C(i, n - 1) / C(N, n).
    """
    ordered = sorted(sign * score for score in scores)
    total = len(ordered)
    found = []
    for n in range(1, total + 1):
        chance, value = n / total, 0.0  # of the highest score, in place N - 1
        for place in range(total - 1, n - 2, -1):
            value += chance * ordered[place]
            chance *= (place - n + 1) / max(place, 1)
        found.append(sign * value)
    return found


def curve_of(tuning: Mapping[str, Any]) -> list[float]:
    """Return the curve of a record's `tuning`. Trials without a score are left out."""
    scores = [trial["selection"] for trial in tuning["trials"] if trial["selection"] is not None]
    return expected_best(scores, metric_of(tuning).sign())


def metric_of(tuning: Mapping[str, Any]) -> Metric:
    """Return the metric by which a search selects."""
    return METRICS[tuning["select_by"]]


def counts_shown(most: int) -> list[int]:
    """Return the numbers of trials to show: powers of two, and all."""
    return sorted({most, *(2**power for power in range(most.bit_length()))}) if most else []


def curve_note(searches: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the curves of searches, by the methods' titles, as one line; '' without a score."""
    curves = {title: curve for title, one in searches.items() if (curve := curve_of(one))}
    if not curves:
        return ""
    metric = metric_of(next(iter(searches.values())))
    counts = counts_shown(max(map(len, curves.values())))
    shown = "; ".join(
        f"{title} {', '.join(metric.format(curve[n - 1]) for n in counts if n <= len(curve))}"
        for title, curve in curves.items()
    )
    trials = ", ".join(map(str, counts)) + (" trial" if counts == [1] else " trials")
    return f"expected best validation {metric.in_text} of {trials}: {shown}"
