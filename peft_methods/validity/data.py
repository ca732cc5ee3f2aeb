"""V1xx: what is wrong with the data."""

from __future__ import annotations

from collections.abc import Iterator

from peft_methods.records import Record
from peft_methods.validity.base import rule
from peft_methods.validity.figures import Figures

OVERLAP_LIMIT = 0.01  # share of a split's texts; random hits stay below it
BALANCE_LIMIT = 0.10  # of the rows would have to change their class to be as the source is
CONTRADICTION_LIMIT = 0.001  # share of the source's texts
TRUNCATION_LIMIT = 0.20  # share of a split's rows
LEAST_ROWS = 10  # fewer may stand in the order of their labels by chance


@rule("V101", "error", "row")
def one_class(figures: Figures) -> Iterator[tuple[str, str]]:
    """A split holds one class only: any method scores 100 % on it, or learns nothing from it."""
    for split, counts in figures.class_counts.items():
        if sum(counts) and sum(count > 0 for count in counts) == 1:
            yield (
                f"all {sum(counts):,.0f} rows of {split} are of one class",
                "shuffle before cutting: is the source sorted by label?",
            )


@rule("V102", "warning", "row")
def class_missing(figures: Figures) -> Iterator[tuple[str, str]]:
    """A split lacks a class that another one has."""
    width = max((len(counts) for counts in figures.class_counts.values()), default=0)
    seen = [
        any(counts[label : label + 1] > (0,) for counts in figures.class_counts.values())
        for label in range(width)
    ]
    for split, counts in figures.class_counts.items():
        missing = [
            label for label in range(width) if seen[label] and counts[label : label + 1] <= (0,)
        ]
        if sum(count > 0 for count in counts) > 1 and missing:
            yield (
                f"{split} holds {len(counts) - len(missing)} of {sum(seen)} classes",
                "take more rows, or stratify: nothing is known of the rest",
            )


@rule("V103", "warning", "cell")
def duplicates_removed(record: Record) -> Iterator[tuple[str, str]]:
    """Texts of train stood in validation or test too and were removed from train."""
    for kind, count in record.data.get("removed", {}).items():
        what, also, where = kind.partition("_also_in_")
        if also and count:
            yield (
                f"{count} {what} texts also stand in {where}; they were removed from {what}",
                "clean the source's splits",
            )


@rule("V104", "warning", "cell")
def parts_of_train(record: Record) -> Iterator[tuple[str, str]]:
    """Texts of validation or test lie within train texts, or hold one that makes up half of them or more."""
    for split, shares in record.data.get("overlap", {}).items():
        within, around = shares["within"], shares["around"]
        if max(within, around) > OVERLAP_LIMIT:
            yield (
                f"{within:.1%} of the {split} texts lie within a train text, {around:.1%} hold one that makes up half of them or more",
                f"part of what {split} asks was trained on; split by whole texts (data.test_split, data.validation_by)",
            )


@rule("V105", "warning", "cell")
def balance_off(record: Record) -> Iterator[tuple[str, str]]:
    """A split's classes are far from as common as they are in the source."""
    sources = record.data.get("source_counts", {})
    for split, counts in record.data.get("class_counts", {}).items():
        source = sources.get(split)
        several = sum(count > 0 for count in counts) > 1  # V101 says what is to be said of one
        if (
            source
            and several
            and sum(counts) >= LEAST_ROWS
            and (off := _distance(counts, source)) > BALANCE_LIMIT
        ):
            yield (
                f"{off:.0%} of the {split} rows would have to be of another class to be as the source is",
                "draw rows at random or stratified, or say why the shares are others",
            )


def _distance(counts: list[int], source: list[int]) -> float:
    """Total variation between two lists of counts: the share of rows that would have to change."""
    return (
        sum(abs(a / sum(counts) - b / sum(source)) for a, b in zip(counts, source, strict=True)) / 2
    )


@rule("V106", "warning", "cell")
def labels_contradict(record: Record) -> Iterator[tuple[str, str]]:
    """The same text stands in the source with different labels."""
    count, texts = record.data.get("contradictory", 0), record.data.get("texts", 0)
    if texts and count > CONTRADICTION_LIMIT * texts:
        yield (
            f"{count:,} of {texts:,} texts of the source stand there with more than one label",
            "no model can be right on both: clean them",
        )


@rule("V107", "warning", "cell")
def truncated(record: Record) -> Iterator[tuple[str, str]]:
    """Many texts are longer than data.max_length, and their ends are not read."""
    cut = {
        split: share
        for split, share in record.data.get("truncated", {}).items()
        if share > TRUNCATION_LIMIT
    }
    if cut:
        said = ", ".join(f"{share:.0%} of {split}" for split, share in cut.items())
        yield (
            f"{said} cut at {record.cell['recipe']['data']['max_length']} tokens",
            "raise data.max_length as far as the model reads",
        )


@rule("V108", "warning", "cell")
def sorted_by_label(record: Record) -> Iterator[tuple[str, str]]:
    """The rows of a split stand in the order of their labels: a part of them has one class, and so have whole batches."""
    for split, runs in record.data.get("label_runs", {}).items():
        counts = record.data.get("class_counts", {}).get(split, ())
        classes = sum(count > 0 for count in counts)
        if classes > 1 and sum(counts) >= LEAST_ROWS and runs == classes:
            yield (
                f"the {sum(counts):,} rows of {split} stand sorted by label, {classes} runs of one class each",
                "shuffle before cutting",
            )
