"""The rules: each reads records and says what is wrong with them, with evidence and what to do.

V1xx is about data, V2xx about training, V3xx about results, V4xx about measuring, V5xx about comparing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from peft_methods.records import Record

Severity = Literal["error", "warning", "note"]
THERMAL_SHARE = 0.01  # of the training time slowed by heat before anyone is told
FULL = 0.95  # of the device's memory
UNATTRIBUTED = 0.05  # of the training peak
OVERLAP_LIMIT = 0.01  # share of a split's texts; random hits stay below it
FLOOR = "head_only"  # the method that only shows what a frozen encoder gives


@dataclass(frozen=True)
class Finding:
    """What a rule says about one cell, or about one method over its seeds."""

    rule: str
    severity: Severity
    subject: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.rule} {self.severity} {self.subject}: {self.evidence} → {self.advice}"


Check = Callable[[list[Record]], Iterable[tuple[str, str]]]


@dataclass(frozen=True)
class Rule:
    """A rule's stable id, how bad it is, what it is about, and the function that gives (evidence, advice) pairs.

    A rule of scope `cell` gets one record, one of scope `method` those of all seeds of one method on one recipe.
    """

    id: str
    severity: Severity
    scope: Literal["cell", "method"]
    title: str
    check: Check


RULES: dict[str, Rule] = {}


def rule(id: str, severity: Severity, scope: Literal["cell", "method"] = "cell") -> Callable[[Check], Rule]:
    """Register a rule; its title is the first line of its docstring."""

    def register(check: Check) -> Rule:
        made = Rule(id, severity, scope, (check.__doc__ or "").strip().splitlines()[0], check)
        RULES[id] = made
        return made

    return register


def judge(records: Iterable[Record]) -> list[Finding]:
    """Every finding on these records; cells without a result are left out (their status says it all)."""
    good = [record for record in records if record.status == "ok"]
    by_method: dict[str, list[Record]] = {}
    for record in good:
        by_method.setdefault(f"{record.recipe_name}-{record.method_name}", []).append(record)
    by_cell = {f"{record.recipe_name}-{record.method_name}-seed{record.seed}": [record] for record in good}
    return [
        Finding(rule.id, rule.severity, subject, *said)
        for rule in RULES.values()
        for subject, judged in (by_cell if rule.scope == "cell" else by_method).items()
        for said in rule.check(judged)
    ]


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@rule("V103", "warning")
def duplicates_removed(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Texts of train stood in validation or test too and were removed from train."""
    (record,) = records
    for kind, count in record.data.get("removed", {}).items():
        what, also, where = kind.partition("_also_in_")
        if also and count:
            yield f"{count} {what} texts also stand in {where}; they were removed from {what}", "clean the source's splits"


@rule("V104", "warning")
def parts_of_train(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Texts of validation or test lie within train texts, or hold one that makes up half of them or more."""
    (record,) = records
    for split, shares in record.data.get("overlap", {}).items():
        within, around = shares["within"], shares["around"]
        if max(within, around) > OVERLAP_LIMIT:
            yield (
                f"{within:.1%} of the {split} texts lie within a train text, {around:.1%} hold one that makes up half of them or more",
                f"part of what {split} asks was trained on; split by whole texts (data.test_split, data.validation_by)",
            )


@rule("V201", "error")
def frozen_weights_changed(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Weights that should be frozen are not what they were."""
    (record,) = records
    if changed := record.evidence.frozen_changed:
        yield f"{len(changed)} frozen tensors changed ({_names(changed)})", "the method trains, or corrupts, what it should not"


@rule("V202", "error")
def parameters_not_moved(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Trainable parameters did not move by more than weight decay moves them."""
    (record,) = records
    if unmoved := record.evidence.unmoved:
        yield (
            f"{len(unmoved)} of {record.evidence.moved_checked} trained tensors did not move ({_names(unmoved)})",
            "no gradient reaches them: nothing was trained there",
        )


@rule("V203", "error")
def trainable_count_off(records: list[Record]) -> Iterator[tuple[str, str]]:
    """The trainable parameters are not as many as the closed form says."""
    (record,) = records
    expected, counted = record.evidence.expected_trainable, record.metrics.get("method_parameters")
    if expected is not None and counted is not None and counted != expected:
        yield f"{counted:,.0f} trainable parameters beside the head, {expected:,} expected", "the targets are not those configured"


@rule("V301", "error")
def not_above_majority(records: list[Record]) -> Iterator[tuple[str, str]]:
    """A seed's test accuracy is not above the majority class by the recipe's margin (the floor method exempt)."""
    (record,) = records
    accuracy, majority = record.metrics.get("accuracy"), record.data.get("majority")
    margin = record.cell["recipe"]["expect"]["margin_over_majority"]
    if record.method_name == FLOOR or accuracy is None or majority is None:
        return
    if accuracy <= majority or accuracy < majority + margin:
        yield (
            f"accuracy {accuracy:.3f}, majority class {majority:.3f}, margin wanted {margin:.2f}",
            "raise the learning rate or the budget, or lower expect.margin_over_majority if that is all there is to get",
        )


@rule("V302", "error")
def not_finite(records: list[Record]) -> Iterator[tuple[str, str]]:
    """A loss, or what the model gives for a test row, is not a finite number."""
    (record,) = records
    losses = [(name, epoch["epoch"], epoch[name]) for epoch in record.epochs for name in ("train_loss", "validation_loss")]
    spoilt = [f"{name} of epoch {epoch:.0f} is {loss}" for name, epoch, loss in losses if loss is not None and not math.isfinite(loss)]
    said = spoilt[:1]
    if record.quality is None and record.metrics.get("accuracy", 0.0) is None and _should_be_judged(record):
        said.append("its logits for the test rows are not finite, so they were not judged")
    if said:
        yield "; ".join(said), "lower the learning rate, or take budget.precision=bf16 or fp32 if it is fp16"


def _should_be_judged(record: Record) -> bool:
    return record.cell["recipe"]["model"]["weights"] != "random" and record.data.get("majority") is not None


def _gpu_states(record: Record) -> list[dict[str, Any]]:
    """What NVML said before and after the cell; nothing on a CPU."""
    gpu = record.environment.get("gpu") or {}
    return [state for state in (gpu.get("before"), gpu.get("after")) if state]


@rule("V401", "warning")
def gpu_shared(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Another process was on the GPU while the cell ran."""
    (record,) = records
    others = sorted({pid for state in _gpu_states(record) for pid in state["other_processes"]})
    if others:
        yield (
            f"{len(others)} other processes on the GPU (pid {_names(tuple(map(str, others)))})",
            "end them and run again: time, energy and free memory were shared",
        )


@rule("V402", "warning")
def gpu_throttled(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Heat or a fault slowed the GPU's clocks. (The power cap does too: that is how a busy GPU works.)"""
    (record,) = records
    reasons = {reason for state in _gpu_states(record) for reason in state["throttle_reasons"]} - {"power cap"}
    seconds = record.metrics.get("thermal_slowdown_seconds") or 0.0
    if seconds > THERMAL_SHARE * (record.metrics.get("train_seconds") or 0.0):
        reasons.add(f"{seconds:.1f} s of thermal slowdown")
    if reasons:
        yield f"the GPU was slowed: {', '.join(sorted(reasons))}", "cool it, or compare only with runs slowed alike"


@rule("V403", "warning")
def gpu_memory_low(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Nearly all of the GPU's memory was taken: the allocator frees and retries there, which costs time."""
    (record,) = records
    total = max((state["memory_total_bytes"] or 0 for state in _gpu_states(record)), default=0)
    reserved = record.metrics.get("train_reserved_bytes") or 0.0
    if total and reserved > FULL * total:
        yield (
            f"{reserved / 2**30:.1f} of {total / 2**30:.1f} GiB were reserved in training",
            "a smaller batch or gradient checkpointing gives times that are the method's own",
        )


@rule("V404", "warning")
def peak_not_explained(records: list[Record]) -> Iterator[tuple[str, str]]:
    """More than 5 % of the training peak belongs to no part."""
    (record,) = records
    peak, rest = record.metrics.get("peak_memory_bytes"), record.metrics.get("unattributed_bytes")
    if peak and rest is not None and abs(rest) > UNATTRIBUTED * peak:
        yield f"{rest / peak:.1%} of the training peak is attributed to nothing", "read the parts as lower bounds"


@rule("V405", "warning")
def engine_fell_back(records: list[Record]) -> Iterator[tuple[str, str]]:
    """The engine asked for could not run the cell; the stock Trainer did, and its times are the stock Trainer's."""
    (record,) = records
    note = record.environment.get("engine_note")
    if note:
        yield str(note), "compare its times only with rows of the stock engine: --peft-engine stock trains all that way"


@rule("V501", "note", "method")
def no_quality_to_compare(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Weights, and perhaps texts, are random: what is compared is cost."""
    recipe, data = records[0].cell["recipe"], records[0].data
    if recipe["model"]["weights"] != "random":
        return
    what, advice = "weights are random", "compare time, memory and parameters; for quality train pretrained weights"
    if data.get("random") and recipe["data"]["token_lengths"]:
        what = "weights and texts are random (as many tokens a row as data.token_lengths says)"
    elif data.get("random"):
        what = f"weights and texts are random (every row {recipe['data']['max_length']} tokens long, the most there can be)"
        advice += "; give data.token_lengths for what shorter texts cost"
    yield f"{what}, so there is no quality to judge", advice
