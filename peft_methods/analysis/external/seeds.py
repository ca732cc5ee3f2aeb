"""Seeds of one method among an audited table's rows: their means and spreads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from peft_methods.analysis.checks.means import mean_of, mean_series
from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.external.rows import TableRow
from peft_methods.analysis.external.vocabulary import without_words

# Settings that make two rows of one method separate entries, with their words in a row's name.
SETTINGS: dict[str, Callable[[ResultRow], Any]] = {
    "rank": lambda row: row.rank,
    "virtual tokens": lambda row: row.virtual_tokens,
    "targets": lambda row: "+".join(row.targets) or None,
    "bias": lambda row: row.bias,
    "learning rate": lambda row: row.learning_rate,
    "batch size": lambda row: row.batch_size,
    "epochs": lambda row: row.epochs,
    "maximum length": lambda row: row.max_length,
    "train rows": lambda row: row.train_rows,
    "trainable": lambda row: row.trainable and row.trainable.text,
    "precision": lambda row: row.precision,
    "device": lambda row: row.device,
    "data": lambda row: row.data,
    "task": lambda row: row.task,
    "versions": lambda row: ", ".join(f"{k} {v}" for k, v in sorted(row.versions.items())) or None,
}
Entries = tuple[tuple[ResultRow, ...], tuple[tuple[int, ...], ...], tuple[str, ...]]


def entries_of(rows: Sequence[ResultRow]) -> Entries:
    """Return one row for each method and setting, the lines of each, and remarks.

    Rows of one name with the same settings are seeds: the entry has their means. Rows of one name
    with different settings, also in columns that are unknown, get those that differ behind their
    names.
    """
    by_name: dict[str, list[ResultRow]] = {}
    for row in rows:
        by_name.setdefault(without_words(row.name) or row.name, []).append(row)
    found: list[tuple[ResultRow, tuple[int, ...]]] = []
    remarks = []
    for same in by_name.values():
        by_setting: dict[tuple[Any, ...], list[ResultRow]] = {}
        others = list(dict.fromkeys(header for row in same for header in _others(row)))
        for row in same:
            key = (*(of(row) for of in SETTINGS.values()), *map(_others(row).get, others))
            by_setting.setdefault(key, []).append(row)
        remarks += _of_unread(same, others)
        for key, seeds in by_setting.items():
            name = _name(seeds[0].name, (*SETTINGS, *others), key, by_setting)
            found.append((_merged(name, seeds), tuple(row.line for row in seeds)))
            if len(seeds) > 1 and len({row.seed for row in seeds} - {None}) < len(seeds):
                lines = ", ".join(str(row.line + 1) for row in seeds)
                remarks.append(f"rows {lines} are {name} with equal settings: taken as its seeds")
    found.sort(key=lambda one: one[1][0])
    rows_, lines_ = zip(*found, strict=True)
    return tuple(rows_), tuple(lines_), tuple(remarks)


def _others(row: ResultRow) -> Mapping[str, str]:
    return row.others if isinstance(row, TableRow) else {}


def _of_unread(same: Sequence[ResultRow], headers: Sequence[str]) -> list[str]:
    """Say which unknown columns make settings of a method's rows that are equal otherwise."""
    by_known: dict[tuple[Any, ...], list[ResultRow]] = {}
    for row in same:
        by_known.setdefault(tuple(of(row) for of in SETTINGS.values()), []).append(row)
    remarks = []
    for rows in by_known.values():
        differing = [one for one in headers if len({_others(row).get(one) for row in rows}) > 1]
        if differing:
            lines = ", ".join(str(row.line + 1) for row in rows)
            remarks.append(
                f"rows {lines} are {rows[0].name} and differ in {', '.join(map(repr, differing))}, "
                f"{'which is' if len(differing) == 1 else 'which are'} not understood: taken as "
                "different settings, not as seeds"
            )
    return remarks


def _name(
    name: str, settings: Sequence[str], key: tuple[Any, ...], all_keys: Iterable[tuple[Any, ...]]
) -> str:
    """Return the name with the settings that differ among the rows of this name."""
    keys = list(all_keys)
    differing = [
        f"{what} {value:g}" if isinstance(value, float | int) else f"{what} {value}"
        for place, (what, value) in enumerate(zip(settings, key, strict=True))
        if value is not None and any(other[place] != value for other in keys)
    ]
    return f"{name} ({', '.join(differing)})" if differing else name


def _merged(name: str, seeds: Sequence[ResultRow]) -> ResultRow:
    """Average the figures of a method's seeds; a single row only gets its name."""
    if len(seeds) == 1:
        return replace(seeds[0], name=name)
    seconds = [row.train_seconds for row in seeds if row.train_seconds is not None]
    return replace(
        seeds[0],
        name=name,
        seed=None,
        accuracy=mean_of(seeds, lambda row: row.accuracy),
        validation_accuracy=mean_of(seeds, lambda row: row.validation_accuracy),
        train_accuracy=mean_of(seeds, lambda row: row.train_accuracy),
        scores={
            score: fmean(row.scores[score] for row in seeds if score in row.scores)
            for score in dict.fromkeys(score for row in seeds for score in row.scores)
        },
        train_seconds=fmean(seconds) if seconds else None,
        train_seconds_deviation=stdev(seconds) if len(seconds) > 1 else None,
        samples_per_second=mean_of(seeds, lambda row: row.samples_per_second),
        energy_joules=mean_of(seeds, lambda row: row.energy_joules),
        peak_memory=_mean_peak([row.peak_memory for row in seeds if row.peak_memory]),
        maximum_memory=mean_of(seeds, lambda row: row.maximum_memory),
        validation_accuracies=mean_series([row.validation_accuracies for row in seeds]),
        validation_losses=mean_series([row.validation_losses for row in seeds]),
        train_losses=mean_series([row.train_losses for row in seeds]),
    )


def _mean_peak(peaks: Sequence[RoundedCount]) -> RoundedCount | None:
    """Return the mean of peaks, as it is written where all are written alike."""
    if not peaks:
        return None
    alike = len({peak.text for peak in peaks}) == 1
    return peaks[0] if alike else RoundedCount.exactly(fmean(peak.value for peak in peaks))
