"""The rules: each reads records and says what is wrong with them, with evidence and what to do.

V1xx is about data, V2xx about training, V3xx about results, V4xx about measuring, V5xx about comparing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from peft_methods.records import Record

Severity = Literal["error", "warning", "note"]
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
def loss_not_finite(records: list[Record]) -> Iterator[tuple[str, str]]:
    """A loss is not a number."""
    (record,) = records
    for epoch in record.epochs:
        for name in ("train_loss", "validation_loss"):
            if not epoch[name] < float("inf"):
                yield f"{name} of epoch {epoch['epoch']:.0f} is {epoch[name]}", "lower the learning rate or raise the precision"
