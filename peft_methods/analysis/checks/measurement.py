"""V4xx: mistakes in the measurement of time and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import first_three, is_quantized, rule
from peft_methods.methods.registry import METHODS
from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record
from peft_methods.runs.scaling import EFFICIENCY
from peft_methods.tasks.metrics import in_seconds
from peft_methods.utils.words import counted

THERMAL_SHARE = 0.01  # smallest reported share of the training time slowed by heat
NEARLY_FULL = 0.95  # share of the device's memory
UNATTRIBUTED = 0.05  # share of the training peak
DIGITS = 4  # two memory figures with this many digits are not equal by chance
ABOVE_FULL = 1.2  # on a small model QLoRA needs a little more than it saves
SPREAD = 0.20  # standard deviation of the training time, as a share of it
SURPLUS = 1.25  # training time / (steps x the 95th percentile of the step time)
LEAST_STEPS = 20  # with fewer steps, one slow step may dominate
LEAST_BUSY_SHARE = 0.7  # share of the training time in which the training thread had a core
BEST_EFFICIENCY = 1.1  # a smaller share of a batch may fit caches, and is padded less
CLOCKS = 0.05  # largest allowed difference of clocks, as a share
LEFT_OVER = 16 * 2**20  # bytes on the device before a model was loaded
MEMORY_ROUNDING = 1.001


def _gpu_states(record: Record) -> list[dict[str, Any]]:
    """Return NVML's readings before and after the run; nothing on a CPU."""
    gpu = record.environment.get("gpu") or {}
    return [state for state in (gpu.get("before"), gpu.get("after")) if state]


@rule("V401", "warning", "run")
def gpu_shared(record: Record) -> Iterator[tuple[str, str]]:
    """Another process was on the GPU during the run."""
    others = sorted({pid for state in _gpu_states(record) for pid in state["other_processes"]})
    if others:
        yield (
            f"{counted(len(others), 'other process', 'other processes')} on the GPU "
            f"(pid {first_three([str(pid) for pid in others])})",
            "end them and repeat the run: time, energy and free memory were shared",
        )


@rule("V402", "warning", "run")
def gpu_throttled(record: Record) -> Iterator[tuple[str, str]]:
    """Heat or a fault reduced the GPU's clocks (the power cap, which is normal, is ignored)."""
    reasons = {reason for state in _gpu_states(record) for reason in state["throttle_reasons"]} - {
        "power cap"
    }
    seconds = record.metrics.get("thermal_slowdown_seconds") or 0.0
    if seconds > THERMAL_SHARE * (record.metrics.get("train_seconds") or 0.0):
        reasons.add(f"{in_seconds(seconds)} of thermal slowdown")
    if reasons:
        yield (
            f"the GPU was slowed: {', '.join(sorted(reasons))}",
            "improve the cooling, or compare only with runs that were slowed equally",
        )


@rule("V403", "warning", "run")
def gpu_memory_low(record: Record) -> Iterator[tuple[str, str]]:
    """Nearly all GPU memory was used: the allocator then frees and retries, which is slow."""
    total = max((state["memory_total_bytes"] or 0 for state in _gpu_states(record)), default=0)
    reserved = record.metrics.get("train_reserved_bytes") or 0.0
    if total and reserved > NEARLY_FULL * total:
        yield (
            f"{reserved / 2**30:.1f} of {total / 2**30:.1f} GiB were reserved in training",
            "use a smaller batch or gradient checkpointing, so that no time goes into retries",
        )


@rule("V404", "warning", "run")
def peak_not_explained(record: Record) -> Iterator[tuple[str, str]]:
    """More than 5 % of the training peak is not attributed to any part."""
    peak, rest = record.metrics.get("peak_memory_bytes"), record.metrics.get("unattributed_bytes")
    if peak and rest is not None and abs(rest) > UNATTRIBUTED * peak:
        yield (
            f"{rest / peak:.1%} of the training peak is unattributed",
            "read the parts as lower bounds",
        )


@rule("V405", "warning", "comparison", needs=("fell_back",), rows=1)
def engine_fell_back(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """The trainer engine trained only some of the runs: their times cannot be compared."""
    if all(row.fell_back == 1 for row in rows):
        return
    for row in rows:
        if row.fell_back:
            part = "it" if row.fell_back == 1 else f"{row.fell_back:.0%} of its runs"
            yield (
                row.name,
                f"the chosen engine did not train {part}: {row.engine_note}",
                'compare its times only with rows of the trainer engine; set engine = "trainer" '
                "to train every method with it",
            )


@rule(
    "V406",
    "warning",
    "comparison",
    evidence=(
        "the peak could not be reset on this system",
        "the same peak to the last digit, …",
        "… MB, … times the memory of full fine-tuning",
    ),
    needs=(
        "peak_memory",
        "maximum_memory",
        "peak_is_reset",
    ),
    rows=1,
)
def peak_not_reset(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """A peak that looks carried over: not reset, equal to another, or QLoRA's above full's."""
    advice = (
        "reset the peak before training (torch.cuda.reset_peak_memory_stats), "
        "and run each method in a fresh process"
    )
    never = [row.name for row in rows if row.peak_is_reset is False]
    if never:
        yield (
            ", ".join(never),
            "the peak could not be reset on this system",
            "read memory as an upper bound",
        )
    by_text: dict[str, list[ResultRow]] = {}
    for row in rows:
        if row.peak_is_reset is None and row.peak_memory and row.peak_memory.digits >= DIGITS:
            by_text.setdefault(row.peak_memory.text, []).append(row)
    for text, alike in by_text.items():
        # One method twice, at different learning rates for example, may need the same memory.
        if len({row.method or row.name for row in alike}) > 1:
            yield (
                ", ".join(row.name for row in alike),
                f"the same peak to the last digit, {text}",
                advice,
            )
    yield from ((name, evidence, advice) for name, evidence in _above_full(rows))


def _above_full(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str]]:
    """QLoRA above full fine-tuning in memory.

    It has LoRA's few gradients and 4-bit weights, so only a different workload explains that.
    """
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
                f"{row.memory / 1e6:,.0f} MB, {row.memory / full:.1f} times the memory of full "
                "fine-tuning",
            )


@rule("V407", "warning", "run")
def process_polluted(record: Record) -> Iterator[tuple[str, str]]:
    """Memory was in use before the run loaded anything, so its figures include leftovers."""
    left = record.environment.get("memory_before_bytes") or 0
    if left > LEFT_OVER:
        yield (
            f"{left / 2**20:,.0f} MiB were allocated before the model was loaded",
            "start each run in a fresh process",
        )


@rule("V408", "warning", "comparison", needs=("train_seconds train_seconds_deviation",), rows=1)
def timing_spread(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """The training time varies too much between the seeds of one method."""
    for row in rows:
        seconds, deviation = row.train_seconds, row.train_seconds_deviation
        if seconds and deviation is not None and deviation > SPREAD * seconds:
            spread = METRICS["train_seconds"].with_spread(seconds, deviation)
            yield (
                row.name,
                f"{spread} over the seeds, a deviation of {deviation / seconds:.0%}",
                "run on an idle machine, or train longer",
            )


@rule("V409", "warning", "row", needs=("peak_memory maximum_memory",))
def memory_below_maximum(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The reported memory is below the maximum: it was read after the peak.

    It shows what was left, not what was needed.
    """
    given, most = row.peak_memory, row.maximum_memory
    if given is not None and most is not None and most > MEMORY_ROUNDING * given.high:
        yield (
            f"{given.value / 1e6:,.2f} MB reported, the maximum was {most / 1e6:,.2f} MB",
            "report the peak of the training phase",
        )


@rule("V410", "warning", "row", needs=("train_seconds step_seconds epochs steps_per_epoch",))
def time_beside_training(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The training time is longer than its steps: it includes other work."""
    seconds, step, epochs, steps = (
        row.train_seconds,
        row.step_seconds,
        row.epochs,
        row.steps_per_epoch,
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
            "stop the clock while loading, compiling, evaluating and saving",
        )


@rule("V411", "warning", "run")
def cpu_oversubscribed(record: Record) -> Iterator[tuple[str, str]]:
    """More threads ran than there were cores: the training thread had to wait."""
    environment, share = record.environment, record.metrics.get("busy_share")
    threads, cores = environment.get("threads"), environment.get("cores")
    evidence = []
    if threads and cores and threads > cores:
        evidence.append(f"{counted(threads, 'thread')} on {counted(cores, 'core')}")
    if share is not None and share < LEAST_BUSY_SHARE:
        evidence.append(f"the training thread had a core for {share:.0%} of the training time")
    if evidence:
        yield (
            "; ".join(evidence),
            "use fewer workers or threads (workers = 1), and run nothing else on the machine",
        )


@rule("V412", "warning", "comparison", needs=("clock_mhz",))
def clock_changed(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """The GPU ran at different clocks for some methods."""
    known = [row for row in rows if row.clock_mhz]
    highest = max((row.clock_mhz or 0.0 for row in known), default=0.0)
    slow = [row for row in known if (row.clock_mhz or 0.0) < (1 - CLOCKS) * highest]
    if slow:
        clocks = ", ".join(f"{row.clock_mhz:,.0f}" for row in slow)
        yield (
            ", ".join(row.name for row in slow),
            f"{clocks} MHz, the others up to {highest:,.0f}",
            "repeat the runs at one fixed clock",
        )


@rule("V413", "note", "comparison", needs=("engine_note",), rows=1)
def engine_never_used(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """The chosen engine trained no method; the trainer engine trained them all."""
    if rows and all(row.fell_back == 1 for row in rows):
        for reason in dict.fromkeys(row.engine_note for row in rows):
            yield (
                ", ".join(row.name for row in rows if row.engine_note == reason),
                f"the chosen engine did not train them: {reason}",
                'their times can be compared with one another; set engine = "trainer" to choose '
                "it for all",
            )


@rule("V416", "warning", "run")
def scales_too_well(record: Record) -> Iterator[tuple[str, str]]:
    """Several processes were faster than as many times one, so the one was slowed by something."""
    efficiency = record.metrics.get(EFFICIENCY)
    if efficiency is not None and efficiency > BEST_EFFICIENCY:
        yield (
            f"scaling efficiency {efficiency:.0%}: each process does more than the run on one does",
            "train the run on one again; its code, memory, clock or another process slowed it",
        )
