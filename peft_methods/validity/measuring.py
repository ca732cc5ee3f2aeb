"""V4xx: what is wrong with the measuring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from peft_methods.methods import METHODS
from peft_methods.metrics import METRICS, in_seconds
from peft_methods.records import Record
from peft_methods.validity.base import is_quantized, rule, some
from peft_methods.validity.figures import Figures

THERMAL_SHARE = 0.01  # of the training time slowed by heat before anyone is told
FULL = 0.95  # of the device's memory
UNATTRIBUTED = 0.05  # of the training peak
DIGITS = 4  # a memory figure with as many may not be another's by chance
ABOVE_FULL = 1.2  # a small model's QLoRA needs a little more than it saves
SPREAD = 0.20  # standard deviation of the training time, as a share of it
SURPLUS = 1.25  # the training time in steps' 95th percentiles
LEAST_STEPS = 20  # fewer may all but one be fast
BUSY = 0.7  # of the training time that the training thread had a core
CLOCKS = 0.05  # the share that clocks may differ by
LEFT_OVER = 16 * 2**20  # bytes on the device before there was a model
MEMORY_ROUNDING = 1.001


def _gpu_states(record: Record) -> list[dict[str, Any]]:
    """What NVML said before and after the cell; nothing on a CPU."""
    gpu = record.environment.get("gpu") or {}
    return [state for state in (gpu.get("before"), gpu.get("after")) if state]


@rule("V401", "warning", "cell")
def gpu_shared(record: Record) -> Iterator[tuple[str, str]]:
    """Another process was on the GPU while the cell ran."""
    others = sorted({pid for state in _gpu_states(record) for pid in state["other_processes"]})
    if others:
        yield (
            f"{len(others)} other processes on the GPU (pid {some([str(pid) for pid in others])})",
            "end them and run again: time, energy and free memory were shared",
        )


@rule("V402", "warning", "cell")
def gpu_throttled(record: Record) -> Iterator[tuple[str, str]]:
    """Heat or a fault slowed the GPU's clocks. (The power cap does too: that is how a busy GPU works.)"""
    reasons = {reason for state in _gpu_states(record) for reason in state["throttle_reasons"]} - {
        "power cap"
    }
    seconds = record.metrics.get("thermal_slowdown_seconds") or 0.0
    if seconds > THERMAL_SHARE * (record.metrics.get("train_seconds") or 0.0):
        reasons.add(f"{in_seconds(seconds)} of thermal slowdown")
    if reasons:
        yield (
            f"the GPU was slowed: {', '.join(sorted(reasons))}",
            "cool it, or compare only with runs slowed alike",
        )


@rule("V403", "warning", "cell")
def gpu_memory_low(record: Record) -> Iterator[tuple[str, str]]:
    """Nearly all of the GPU's memory was taken: the allocator frees and retries there, which costs time."""
    total = max((state["memory_total_bytes"] or 0 for state in _gpu_states(record)), default=0)
    reserved = record.metrics.get("train_reserved_bytes") or 0.0
    if total and reserved > FULL * total:
        yield (
            f"{reserved / 2**30:.1f} of {total / 2**30:.1f} GiB were reserved in training",
            "a smaller batch or gradient checkpointing gives times that are the method's own",
        )


@rule("V404", "warning", "cell")
def peak_not_explained(record: Record) -> Iterator[tuple[str, str]]:
    """More than 5 % of the training peak belongs to no part."""
    peak, rest = record.metrics.get("peak_memory_bytes"), record.metrics.get("unattributed_bytes")
    if peak and rest is not None and abs(rest) > UNATTRIBUTED * peak:
        yield (
            f"{rest / peak:.1%} of the training peak is attributed to nothing",
            "read the parts as lower bounds",
        )


@rule("V405", "warning", "cell")
def engine_fell_back(record: Record) -> Iterator[tuple[str, str]]:
    """The engine asked for could not run the cell; the stock Trainer did, and its times are the stock Trainer's."""
    note = record.environment.get("engine_note")
    if note:
        yield (
            str(note),
            "compare its times only with rows of the stock engine: --peft-engine stock trains all that way",
        )


@rule("V406", "warning", "comparison")
def peak_not_reset(rows: Sequence[Figures]) -> Iterator[tuple[str, str, str]]:
    """A peak that looks carried over: never reset, the same as another's to the last digit, or QLoRA's above full fine-tuning's."""
    advice = "reset the peak before training (torch.cuda.reset_peak_memory_stats), each method in a fresh process"
    never = [row.name for row in rows if row.peak_is_reset is False]
    if never:
        yield (
            ", ".join(never),
            "the peak could not be reset on this system",
            "read memory as an upper bound",
        )
    shown: dict[str, list[Figures]] = {}
    for row in rows:
        if (
            row.peak_is_reset is None
            and row.peak_memory
            and _digits(row.peak_memory.text) >= DIGITS
        ):
            shown.setdefault(row.peak_memory.text, []).append(row)
    for text, alike in shown.items():
        if (
            len({row.method or row.name for row in alike}) > 1
        ):  # one method twice, at another rate say, needs the same
            yield (
                ", ".join(row.name for row in alike),
                f"the same peak to the last digit, {text}",
                advice,
            )
    yield from ((name, said, advice) for name, said in _above_full(rows))


def _digits(text: str) -> int:
    """Digits that say something: 3.240 has three."""
    return len("".join(character for character in text if character.isdigit()).strip("0"))


def _above_full(rows: Sequence[Figures]) -> Iterator[tuple[str, str]]:
    """QLoRA has LoRA's few gradients and 4-bit weights; only work unlike the others' could take it above full fine-tuning."""
    full = next(
        (row.memory for row in rows if row.method == METHODS.reference and row.memory), None
    )
    for row in rows:
        if (
            is_quantized(row.method)
            and row.peak_is_reset is None
            and row.memory
            and full
            and row.memory > ABOVE_FULL * full
        ):
            yield (
                row.name,
                f"{row.memory / 1e6:,.0f} MB, {row.memory / full:.1f} times what full fine-tuning needs",
            )


@rule("V407", "warning", "cell")
def process_polluted(record: Record) -> Iterator[tuple[str, str]]:
    """Memory was in use on the device before the cell loaded anything: another model's leavings are in its figures."""
    left = record.environment.get("memory_before_bytes") or 0
    if left > LEFT_OVER:
        yield (
            f"{left / 2**20:,.0f} MiB were allocated before the model was loaded",
            "one fresh process for each cell",
        )


@rule("V408", "warning", "comparison")
def timing_spread(rows: Sequence[Figures]) -> Iterator[tuple[str, str, str]]:
    """The training time differs too much between runs of one method."""
    for row in rows:
        seconds, deviation = row.train_seconds, row.train_seconds_deviation
        if seconds and deviation is not None and deviation > SPREAD * seconds:
            spread = METRICS["train_seconds"].with_spread(seconds, deviation)
            yield (
                row.name,
                f"{spread}, {deviation / seconds:.0%}",
                "run on a quiet machine, or take longer runs",
            )


@rule("V409", "warning", "row")
def memory_below_maximum(figures: Figures) -> Iterator[tuple[str, str]]:
    """The memory given is less than the maximum seen: it is what was left, not what was needed."""
    given, most = figures.peak_memory, figures.maximum_memory
    if given is not None and most is not None and most > MEMORY_ROUNDING * given.high:
        yield (
            f"{given.value / 1e6:,.2f} MB given, {most / 1e6:,.2f} MB at the maximum",
            "report the peak of the training phase",
        )


@rule("V410", "warning", "row")
def time_beside_training(figures: Figures) -> Iterator[tuple[str, str]]:
    """The training time is longer than its steps: something else is in it."""
    seconds, step, epochs, steps = (
        figures.train_seconds,
        figures.step_seconds,
        figures.epochs,
        figures.steps_per_epoch,
    )
    if (
        seconds is None
        or step is None
        or epochs is None
        or steps is None
        or epochs * steps < LEAST_STEPS
    ):
        return
    if seconds > SURPLUS * step * epochs * steps:
        yield (
            f"{in_seconds(seconds)} for {epochs * steps:,.0f} steps of {step:.4g} s",
            "stop the clock for loading, compiling, evaluating and saving",
        )


@rule("V411", "warning", "cell")
def cpu_oversubscribed(record: Record) -> Iterator[tuple[str, str]]:
    """More threads wanted cores than there were: the training thread had to wait for one."""
    environment, share = record.environment, record.metrics.get("busy_share")
    threads, cores = environment.get("threads"), environment.get("cores")
    said = []
    if threads and cores and threads > cores:
        said.append(f"{threads} threads on {cores} cores")
    if share is not None and share < BUSY:
        said.append(f"the training thread had a core for {share:.0%} of the training time")
    if said:
        yield (
            "; ".join(said),
            "fewer workers or threads (--peft-workers 1), nothing else on the machine",
        )


@rule("V412", "warning", "comparison")
def clock_changed(rows: Sequence[Figures]) -> Iterator[tuple[str, str, str]]:
    """The GPU ran at other clocks for some methods than for others."""
    known = [row for row in rows if row.clock_mhz]
    highest = max((row.clock_mhz or 0.0 for row in known), default=0.0)
    slow = [row for row in known if (row.clock_mhz or 0.0) < (1 - CLOCKS) * highest]
    if slow:
        clocks = ", ".join(f"{row.clock_mhz:,.0f}" for row in slow)
        yield (
            ", ".join(row.name for row in slow),
            f"{clocks} MHz, the others up to {highest:,.0f}",
            "run them again at one clock",
        )
