"""From a recipe to disjoint, stratified splits and the facts about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from peft_methods.data import overlap
from peft_methods.data.bundled import sentences
from peft_methods.data.facts import SPLITS, DataFacts, TextData, fingerprint
from peft_methods.data.labelled_texts import Label, LabelledTexts
from peft_methods.data.labelling import Labelling
from peft_methods.data.overlap import Overlap
from peft_methods.data.selection import (
    FIXED,
    Sizes,
    choose,
    limited_sizes,
    pool_of,
    reachable,
    share_of,
    take_sizes,
    train_subset,
)
from peft_methods.data.sources import read_source
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.cache import cached_value
from peft_methods.utils.errors import DataError

MIN_CHARACTERS_TO_CACHE = 50_000  # of fewer the overlap is measured in some milliseconds
MEASURED_BY = Path(overlap.__file__).read_text(encoding="utf-8")  # now: the file may be changed


def load(
    spec: DataSpec, task: Labelling, seeds: Mapping[str, int] = FIXED, subset_seed: int = 0
) -> TextData:
    """Load the rows of a recipe. Raises `DataError` if the source cannot provide them.

    `seeds`: a run's seed for each split whose rows it draws (`Budget.row_seeds`). `subset_seed`
    draws the rows of `data.train_subset`. The fingerprint is that of the whole data, so that it is
    the same for all subsets.
    """
    raw = sentences(spec.source) if spec.source.startswith(PREFIX) else read_source(spec)
    parsed = task.parse(raw, spec)
    source, label_names = parsed.tables, parsed.label_names
    pools, removed = _disjoint_pools(source, spec, task)
    cut_from = ""
    if _is_by_sentences(pools, spec):
        cut_from = pool_of("validation", pools)
        removed["train_part_of_validation"] = _cut_sentences(pools, spec, task, seeds)
    drawn = {split: seed for split, seed in seeds.items() if not cut_from or split == "train"}
    whole = choose(pools, spec, task, cut_from, drawn)
    if task.texts_repeat:
        whole = _without_shared_texts(whole, removed)
    splits = train_subset(whole, spec, task, subset_seed)
    task.check_splits(splits, label_names, spec)
    drawn_from = {name: source[pool_of(name, source)] for name in SPLITS}
    texts, contradictory = _contradictions(source)
    contradictory = 0 if task.texts_repeat else contradictory
    facts = DataFacts(
        spec.source,
        label_names,
        strata_counts(splits, len(label_names), task),
        fingerprint(whole),
        removed,
        overlap={} if task.texts_repeat else _overlaps(splits),
        source_counts=strata_counts(drawn_from, len(label_names), task),
        texts=texts,
        contradictory=contradictory,
        label_runs=_label_runs(splits, task) if task.has_classes else {},
        source_label_runs=_label_runs(drawn_from, task) if task.has_classes else {},
        drawn_from={name: pool_of(name, source) for name in SPLITS},
        merged_labels=parsed.merged_labels,
        test_fingerprint=fingerprint({"test": splits["test"]}) if seeds else "",
        trivial_baseline=(
            dict(task.trivial_baseline(splits, label_names)) if len(splits["test"]) else {}
        ),
        notes=parsed.notes,
    )
    return TextData(splits, facts)


def strata_counts(
    tables: dict[str, LabelledTexts], strata: int, task: Labelling
) -> dict[str, tuple[int, ...]]:
    """Return the number of rows in each stratum (for a classifier: class), by split."""
    return {
        name: tuple(np.bincount(task.strata(table.labels), minlength=strata).tolist())
        for name, table in tables.items()
    }


def _label_runs(tables: dict[str, LabelledTexts], task: Labelling) -> dict[str, int]:
    """Return the number of runs of consecutive rows with the same stratum, by split."""
    return {
        name: 1 + sum(a != b for a, b in pairwise(task.strata(table.labels)))
        for name, table in tables.items()
        if len(table)
    }


def _contradictions(source: dict[str, LabelledTexts]) -> tuple[int, int]:
    """Return the number of distinct texts, and of those that have more than one label."""
    labels: dict[str, set[Label]] = {}
    for table in source.values():
        for text, label in zip(table.row_keys(), table.labels, strict=True):
            labels.setdefault(_key(text), set()).add(label)
    return len(labels), sum(len(found) > 1 for found in labels.values())


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _without_shared_texts(
    splits: dict[str, LabelledTexts], removed: dict[str, int]
) -> dict[str, LabelledTexts]:
    """Remove from train the rows whose text is in another split that was cut from the same rows."""
    train = splits["train"]
    for other in ("validation", "test"):
        train, count = train.drop_texts_of(splits[other], _key)
        removed[f"train_also_in_{other}"] = removed.get(f"train_also_in_{other}", 0) + count
    return {**splits, "train": train}


def _disjoint_pools(
    source: dict[str, LabelledTexts], spec: DataSpec, task: Labelling
) -> tuple[dict[str, LabelledTexts], dict[str, int]]:
    """Remove repeated texts.

    Removes duplicates within train, and from train every text that validation or test also
    contains. Where texts repeat, duplicates are rows with the same label, too.
    """
    of_label = task.texts_repeat
    if "all" in source:
        pool = source["all"].drop_duplicates(_key, of_label=of_label)
        return {"all": pool}, {"repeated": len(source["all"]) - len(pool)}
    pools = dict(source)
    pools["train"] = source["train"].drop_duplicates(_key, of_label=of_label)
    removed = {"repeated": len(source["train"]) - len(pools["train"])}
    if "validation" in pools and "test" in pools:
        pools["validation"], removed["validation_also_in_test"] = pools["validation"].drop_texts_of(
            pools["test"], _key
        )
    for other in ("validation", "test"):
        if other in pools:
            pools["train"], removed[f"train_also_in_{other}"] = pools["train"].drop_texts_of(
                pools[other], _key
            )
    if "test" in source:
        _refuse_leak(source["train"], source["test"], spec)
    return pools, removed


def _refuse_leak(train: LabelledTexts, test: LabelledTexts, spec: DataSpec) -> None:
    seen = {_key(text) for text in train.row_keys()}
    leaked = [row for row, text in enumerate(test.row_keys()) if _key(text) in seen]
    if len(leaked) > spec.leakage_limit * len(test):
        raise DataError(
            f"{spec.source}: {len(leaked)} of {len(test)} test texts "
            f"({len(leaked) / len(test):.1%}) also occur in train (the first is test row "
            f"{leaked[0]}); more than {spec.leakage_limit:.0%} makes test accuracy worthless. "
            f"Split the data again. If the overlap is known and small, set data.leakage_limit to a "
            f"higher share: such texts are then removed from train.",
            setting="data.leakage_limit",
        )


def _is_by_sentences(pools: dict[str, LabelledTexts], spec: DataSpec) -> bool:
    """Whether validation rows are whole sentences of train. Raises `DataError` for text pairs.

    Data that replaced the recipe's may be pairs, which are then cut by rows.
    """
    if spec.validation_by != "sentences" or "validation" in pools:
        return False
    is_pairs = next(iter(pools.values())).pairs is not None
    if is_pairs and spec.sizes == "exact":
        raise DataError(
            f"{spec.source}: data.validation_by = 'sentences' is for single texts, not for pairs: "
            f"use 'rows'.",
            setting="data.validation_by",
        )
    return not is_pairs


def _cut_sentences(
    pools: dict[str, LabelledTexts], spec: DataSpec, task: Labelling, seeds: Mapping[str, int]
) -> int:
    """Move whole sentences from train to a validation pool.

    Rows contained in one of them are removed from train. Returns the number of removed rows.
    """
    name = pool_of("validation", pools)
    pool = pools[name]
    if "validation" in seeds and pool_of("test", pools) == name:
        raise DataError(
            f"{spec.source}: budget.vary has 'split', but the test rows are what the validation "
            f"sentences leave, so the seeds would have different test rows. Set "
            f"data.validation_by = \"rows\", or leave 'split' out of budget.vary.",
            setting="data.validation_by",
        )
    sentences = pool.take(overlap.whole_sentences(pool.texts))
    wanted = spec.validation
    if spec.sizes == "at_most":
        wanted = _fewer_sentences(spec, len(sentences), len(pool))
    if wanted != "all" and wanted > len(sentences):
        raise DataError(
            f"{spec.source}: {wanted} validation sentences requested, but only "
            f"{len(sentences)} texts of train are contained in no other. Request fewer "
            f'(data.validation), or cut by rows: data.validation_by = "rows".',
            setting="data.validation",
        )
    taken = take_sizes(sentences, {"validation": wanted}, "", spec, task, seeds=seeds)["validation"]
    related = overlap.rows_within(pool.texts, taken.texts)
    removed = len(related) - len(taken)
    if spec.sizes == "at_most":
        _check_enough(pools, name, spec, len(sentences), removed)
    pools["validation"] = taken
    pools[name] = pool.take(row for row in range(len(pool)) if row not in related)
    return removed


def _fewer_sentences(spec: DataSpec, sentences: int, rows: int) -> int:
    """Return how many of the whole sentences among so many rows validation gets at most."""
    most = min(sentences, share_of(rows))
    return most if spec.validation == "all" else min(spec.validation, most)


def _check_enough(
    pools: dict[str, LabelledTexts], name: str, spec: DataSpec, sentences: int, removed: int
) -> None:
    """Raise `DataError` if the splits cut from this pool, validation among them, are too small.

    Further rows are taken to be whole sentences.
    """
    available = len(pools[name])
    limits: Sizes = {
        split: getattr(spec, split) for split in reversed(SPLITS) if pool_of(split, pools) == name
    }
    others = {split: limit for split, limit in limits.items() if split != "validation"}

    def sizes_of(rows: int) -> dict[str, int]:
        validation = _fewer_sentences(spec, sentences + rows - available, rows)
        left = max(0, rows - validation - removed)
        return {**limited_sizes(others, left), "validation": validation}

    reachable(sizes_of, limits, available, name, spec)


def _overlaps(splits: dict[str, LabelledTexts]) -> dict[str, Overlap]:
    train = splits["train"]
    if train.pairs is not None:
        return {}
    tested = {name: splits[name] for name in ("validation", "test") if len(splits[name])}
    return {name: _overlap(table, train) for name, table in tested.items()}


def _overlap(tested: LabelledTexts, train: LabelledTexts) -> Overlap:
    """Return the overlap of a split with train. That of long texts is cached: every run needs it.

    The key contains the code that measures it, so that no other code's result is returned.
    """

    def measure() -> dict[str, float]:
        return asdict(overlap.measure(tested.texts, train.texts))

    if sum(map(len, (*tested.texts, *train.texts))) < MIN_CHARACTERS_TO_CACHE:
        return Overlap(**measure())
    key = [fingerprint({"train": train, "tested": tested}), MEASURED_BY]
    return Overlap(**cached_value("overlaps", key, measure))
