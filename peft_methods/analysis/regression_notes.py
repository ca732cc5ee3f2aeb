"""Texts of the regression check about devices, upgrades, noise, and all methods together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peft_methods.analysis.baseline import Entry
from peft_methods.analysis.checks.measurement import LEAST_BUSY_SHARE
from peft_methods.analysis.metric_comparison import MetricComparison
from peft_methods.analysis.regression_report import Change
from peft_methods.analysis.spec_changes import device_of, device_text, upgrades
from peft_methods.analysis.tolerances import Tolerance
from peft_methods.runs.record import Record
from peft_methods.utils.words import counted


def busy(metric: str, records: Sequence[Record]) -> str:
    """Return a warning if a time was measured on a busy machine (as rule V411 defines it)."""
    shares = [
        share for record in records if (share := record.metrics.get("busy_share")) is not None
    ]
    if not metric.endswith("_seconds") or min(shares, default=1.0) >= LEAST_BUSY_SHARE:
        return ""
    return (
        f" The machine was busy: the training thread had a core for {min(shares):.0%} of the time "
        "(V411). Measure again on an idle machine."
    )


def device_notes(entry: Entry, record: Record) -> Iterator[str]:
    """Say that the device is another one, and what that means."""
    then, now = device_of(entry.environment), device_of(record.environment)
    if then != now:
        yield (
            f"another device ({device_text(then)} → {device_text(now)}): quality is compared, "
            "time and memory are not"
        )


def upgrade_notes(entry: Entry, record: Record, changes: Sequence[Change]) -> Iterator[str]:
    """Name what moved since the baseline, with the versions of then and now."""
    versions = upgrades(entry, record)
    if not versions:
        return
    moved = "; ".join(_moved(change) for change in changes if change.moved)
    yield f"with {', '.join(versions)}: {moved or 'no metric moved by more than its tolerance'}"


def _moved(change: Change) -> str:
    """Give both values, and up to what change chance explains it."""
    if change.explained is None:
        return f"{change.values}, which cannot be told from chance"
    limit = f"up to {change.tolerance.formatted(change.explained)}"
    if abs(change.worse) <= change.explained:
        return f"{change.values}, which chance explains ({limit})"
    return f"{change.values} (chance explains {limit})"


def limit_notes(changes: Sequence[Change]) -> Iterator[tuple[str, str]]:
    """Yield a text and its metric for each that noise keeps from being judged closely."""
    for tolerance in dict.fromkeys(change.tolerance for change in changes):
        found = [change for change in changes if change.tolerance == tolerance]
        if any(change.explained is None for change in found):
            limit = next(change.limit for change in found if change.explained is None)
            yield f"{tolerance.metric} is not judged: {limit}", tolerance.metric
            continue
        chance = [change.explained or 0.0 for change in found]
        limit = next((change.limit for change in found if change.limit), "")
        if tolerance.is_exceeded(max(chance)):
            yield (
                f"{tolerance.metric}: changes of less than {_range(tolerance, chance)} are not "
                f"judged (tolerance {tolerance.formatted(tolerance.amount)}): "
                f"{limit or 'the spread of the figures; needs more seeds or sessions'}",
                tolerance.metric,
            )


def _range(tolerance: Tolerance, amounts: Sequence[float]) -> str:
    low, high = (tolerance.formatted(pick(amounts)) for pick in (min, max))
    return low if low == high else f"{low} to {high}"


def shift_text(one: MetricComparison) -> str | None:
    """Describe a shift that is common to all methods; None if there is none."""
    tolerance, found = one.tolerance, one.common()
    if found is None or not found.fails(tolerance):
        return None
    changes = [one.alone(name) for name in one.now]
    down = sum(change > 0 for change in changes)
    return (
        f"{down} of {counted(len(changes), 'method')} {'is' if down == 1 else 'are'} worse in "
        f"{tolerance.metric}, by {tolerance.formatted(float(found.worse))} on average (tolerance "
        f"{tolerance.formatted(tolerance.amount)}; chance explains "
        f"{tolerance.formatted(float(found.explained))} across methods): a common shift."
    )


def relative_text(one: MetricComparison, method: str) -> str | None:
    """Describe how a method is worse than the drift that the others show; None if it is not."""
    tolerance, found = one.tolerance, one.relative(method)
    if found is None or not found.fails(tolerance):
        return None
    return (
        f"{tolerance.metric} is worse by {tolerance.formatted(float(found.worse))} than the drift "
        f"that the other methods show (tolerance {tolerance.formatted(tolerance.amount)}; chance "
        f"explains {tolerance.formatted(float(found.explained))}), and by "
        f"{tolerance.formatted(float(one.alone(method)))} alone."
    )
