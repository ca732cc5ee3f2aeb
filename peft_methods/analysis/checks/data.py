"""V1xx: mistakes in the data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import first_three, rule
from peft_methods.data.facts import SPLITS
from peft_methods.runs.record import Record
from peft_methods.tasks.registry import task_of

OVERLAP_LIMIT = 0.01  # share of a split's texts; chance matches stay below it
BALANCE_LIMIT = 0.10  # share of rows whose class would have to change to match the source
CONTRADICTION_LIMIT = 0.001  # share of the source's texts
TRUNCATION_LIMIT = 0.20  # share of a split's rows
LEAST_ROWS = 10  # class frequencies of fewer rows are far off by chance
SORTED_LIMIT = 1e-4  # chance that shuffled rows are sorted by label; a likelier order says nothing


def _by_split(data: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """Return the splits of one part of a record's data with their values, in order of `SPLITS`.

    Those of a stored record are in alphabetical order, and evidence must not depend on that.
    """
    values = data.get(key, {})
    return [(split, values[split]) for split in SPLITS if split in values]


@rule("V101", "error", "row", needs=("class_counts",))
def one_class(row: ResultRow) -> Iterator[tuple[str, str]]:
    """A split holds one class only: any method scores 100 % on it, or learns nothing from it.

    Text classification refuses such data before it trains; tables and other tasks may have them.
    """
    for split, counts in row.class_counts.items():
        if sum(counts) and sum(count > 0 for count in counts) == 1:
            yield (
                f"all {sum(counts):,.0f} rows of {split} are of one class",
                "shuffle before splitting; check whether the source is sorted by label",
            )


@rule("V102", "warning", "row", needs=("class_counts",))
def class_missing(row: ResultRow) -> Iterator[tuple[str, str]]:
    """A split lacks a class that another split has."""
    width = max(map(len, row.class_counts.values()), default=0)
    if all(len(counts) == width and all(counts) for counts in row.class_counts.values()):
        return
    seen = [
        any(counts[label : label + 1] > (0,) for counts in row.class_counts.values())
        for label in range(width)
    ]
    for split, counts in row.class_counts.items():
        missing = [
            label for label in range(width) if seen[label] and counts[label : label + 1] <= (0,)
        ]
        if sum(count > 0 for count in counts) > 1 and missing:
            yield (
                f"{split} holds {len(counts) - len(missing)} of {sum(seen)} classes",
                "take more rows, or stratify: the missing classes are not measured",
            )


@rule("V103", "warning", "run")
def duplicates_removed(record: Record) -> Iterator[tuple[str, str]]:
    """Train texts that also occur in validation or test were removed from train."""
    for kind, count in sorted(record.data.get("removed", {}).items()):
        split, separator, other = kind.partition("_also_in_")
        if separator and count:
            yield (
                f"{count} {split} texts also occur in {other}; they were removed from {split}",
                "remove the duplicates from the source's splits",
            )


@rule("V104", "warning", "run")
def parts_of_train(record: Record) -> Iterator[tuple[str, str]]:
    """Validation or test texts lie within train texts, or contain a train text as half or more.

    A part of what the split asks was trained on, so its accuracy is too high.
    """
    for split, shares in _by_split(record.data, "overlap"):
        within, around = shares["within"], shares["around"]
        if max(within, around) > OVERLAP_LIMIT:
            yield (
                f"{within:.1%} of the {split} texts lie within a train text, "
                f"{around:.1%} contain a train text that makes up at least half of them",
                f"parts of {split} were trained on; split by whole texts "
                f"(data.test_split, data.validation_by)",
            )


@rule("V105", "warning", "run")
def balance_off(record: Record) -> Iterator[tuple[str, str]]:
    """A split's class frequencies are far from those of the source."""
    if not task_of(record.spec.recipe).has_classes:
        return
    sources = record.data.get("source_counts", {})
    for split, counts in _by_split(record.data, "class_counts"):
        source = sources.get(split)
        several = sum(count > 0 for count in counts) > 1  # one class alone is V101
        if (
            source
            and several
            and sum(counts) >= LEAST_ROWS
            and (off := _distance(counts, source)) > BALANCE_LIMIT
        ):
            yield (
                f"{off:.0%} of the {split} rows would need another class to match the source",
                "draw rows at random or stratified, or document why the shares differ",
            )


def _distance(counts: list[int], source: list[int]) -> float:
    """Return the total variation distance between two lists of counts.

    This is the share of rows whose class would have to change to make the frequencies equal.
    """
    return (
        sum(abs(a / sum(counts) - b / sum(source)) for a, b in zip(counts, source, strict=True)) / 2
    )


@rule("V106", "warning", "run")
def labels_contradict(record: Record) -> Iterator[tuple[str, str]]:
    """The same text occurs in the source with different labels."""
    count, texts = record.data.get("contradictory", 0), record.data.get("texts", 0)
    if texts and count > CONTRADICTION_LIMIT * texts:
        yield (
            f"{count:,} of the source's {texts:,} texts occur with more than one label",
            "correct or remove them: no model can be right on both labels",
        )


@rule("V107", "warning", "run")
def truncated(record: Record) -> Iterator[tuple[str, str]]:
    """Many texts are longer than data.max_length, so their ends are cut off."""
    cut = {
        split: share
        for split, share in _by_split(record.data, "truncated")
        if share > TRUNCATION_LIMIT
    }
    if cut:
        shares = ", ".join(f"{share:.0%} of {split}" for split, share in cut.items())
        yield (
            f"{shares} cut at {record.spec.recipe.data.max_length} tokens",
            "raise data.max_length, up to the longest input of the model",
        )


@rule("V108", "note", "run")
def sorted_by_label(record: Record) -> Iterator[tuple[str, str]]:
    """The source's rows are sorted by label: a part of them, taken in order, holds one class.

    A run shuffles them, so its own splits and batches are never sorted.
    """
    pools, counts = record.data.get("drawn_from", {}), record.data.get("source_counts", {})
    found: dict[str, list[int]] = {}
    for split, runs in _by_split(record.data, "source_label_runs"):
        present = [count for count in counts.get(split, ()) if count]
        is_sorted = 1 < len(present) == runs and _chance_of_sorted(present) < SORTED_LIMIT
        found |= {pools.get(split, split): present} if is_sorted else {}
    for pool, present in found.items():
        yield (
            f"the source's {sum(present):,} rows{'' if pool == 'all' else f' of {pool}'} are "
            f"sorted by label, in {len(present)} blocks of one class each; this run shuffled them",
            "shuffle the source before a part of it is taken, here or by other programs",
        )


def _chance_of_sorted(counts: Sequence[int]) -> float:
    """Return the share of all orders of the rows in which every class is one block."""
    blocks = math.lgamma(len(counts) + 1) + sum(math.lgamma(count + 1) for count in counts)
    return math.exp(blocks - math.lgamma(sum(counts) + 1))


ADD_ROWS = "add rows for smaller intervals, or set data.train, data.validation and data.test"
USE_ALL = 'set data.train = "all" to train on all of them'


@rule("V109", "note", "run")
def fewer_rows(record: Record) -> Iterator[tuple[str, str]]:
    """The recipe's sizes are upper limits: rows were too few or left out, or train was cut."""
    spec, data = record.spec.recipe.data, record.data
    if spec.sizes != "at_most" or data.get("random"):
        return
    limits = {split: getattr(spec, split) for split in SPLITS}
    used = {split: sum(data.get("class_counts", {}).get(split, ())) for split in limits}
    is_short = any(limit != "all" and used[split] < limit for split, limit in limits.items())
    cut = [split for split in _cut_from_train(data) if used[split]]
    left = _left_out(data, used) if used["train"] == spec.train else 0
    is_short, is_cut = is_short or bool(cut), left > 0 and record.spec.recipe.has_quality
    if sum(used.values()) and (is_short or is_cut):
        parts = [
            f"{_listed(used)} rows used of at most {_listed(limits)}",
            *_rows_read(record, cut),
        ]
        if left:
            parts += [f"data.train = {spec.train} leaves out {left:,} train rows"]
        both = f"{ADD_ROWS}; {USE_ALL}"
        yield "; ".join(parts), both if is_short and is_cut else ADD_ROWS if is_short else USE_ALL


def _left_out(data: Mapping[str, Any], used: Mapping[str, int]) -> int:
    """Return how many distinct rows of the part that train was drawn from no split got."""
    pools = dict(_by_split(data, "drawn_from"))
    if "train" not in pools:
        return 0
    removed = sum(
        count
        for kind, count in data.get("removed", {}).items()
        if not kind.startswith("validation_")
    )
    taken = sum(used[split] for split, pool in pools.items() if pool == pools["train"])
    return max(0, sum(data["source_counts"]["train"]) - removed - taken)


def _cut_from_train(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the splits that the source lacks, so that their rows were taken from train."""
    for split, pool in _by_split(data, "drawn_from"):
        if pool == "train" and split != pool:
            yield split


def _listed(sizes: Mapping[str, int | str]) -> str:
    """Format sizes: '128 train / 42 validation / 42 test'."""
    return " / ".join(f"{size} {split}" for split, size in sizes.items())


def _rows_read(record: Record, cut: Sequence[str]) -> Iterator[str]:
    """Describe what was read, what was removed, and which splits were cut from train."""
    data = record.data
    read = {
        "" if pool == "all" else f" {pool}": sum(data["source_counts"][split])
        for split, pool in _by_split(data, "drawn_from")
    }
    removed = {kind: count for kind, count in sorted(data.get("removed", {}).items()) if count}
    if read:
        named = ", ".join(f"{kind.replace('_', ' ')}: {count}" for kind, count in removed.items())
        rows = " / ".join(f"{size}{pool}" for pool, size in read.items())
        yield f"the source has {rows} rows" + (f" (left out: {named})" if named else "")
    if cut:
        yield (
            f"without a {' and a '.join(cut)} split, {'these rows were' if cut[1:] else 'it was'} "
            f"cut from train: drawn by data.seed, with the same share of each "
            f"{'class' if task_of(record.spec.recipe).has_classes else 'kind of label'}"
        )


@rule("V110", "warning", "run")
def labels_merged(record: Record) -> Iterator[tuple[str, str]]:
    """Labels that differ in case or blanks only were merged into one class."""
    merged = record.data.get("merged_labels", {})
    if merged:
        evidence = [
            f"{first_three([repr(other) for other in others])} count as {name!r}"
            for name, others in sorted(merged.items())
        ]
        yield (
            first_three(evidence),
            "write each label one way in the source; give classes that differ other names",
        )
