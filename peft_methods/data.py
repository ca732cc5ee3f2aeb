"""Recipe -> texts with labels in exact, disjoint, stratified splits -> token ids; and what is known about them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from peft_methods import embedded, overlap
from peft_methods.caching import remembered
from peft_methods.errors import DataError
from peft_methods.overlap import Overlap
from peft_methods.reading import Table, read_source
from peft_methods.recipe import DataSpec
from peft_methods.rows import Rows, tokenizer_state

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "validation", "test")
WORTH_KEEPING = 1000  # rows


@dataclass(frozen=True)
class DataFacts:
    """What is known about the data of a cell; goes into its record.

    `class_counts` maps a split to its counts in the order of `label_names`; `removed` says how many train rows
    went because their text stands elsewhere (or is part of a validation sentence); `truncated` is the share of rows
    longer than `max_length` tokens; `overlap` says how much of test and of validation is part of train, or train of it.
    Pairs of texts have none: their first texts are the same in many rows.
    `random` says that tokens and labels were drawn in place of the source's. `source_counts` are the class counts of what
    each split was drawn from, as read; `texts` counts the source's different texts, `contradictory` those of them that stand
    there with more than one label; `label_runs` counts the stretches of one class in each split's order of rows.
    """

    source: str
    label_names: tuple[str, ...]
    class_counts: dict[str, tuple[int, ...]]
    fingerprint: str
    removed: dict[str, int] = field(default_factory=dict)
    truncated: dict[str, float] = field(default_factory=dict)
    overlap: dict[str, Overlap] = field(default_factory=dict)
    random: bool = False
    source_counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    texts: int = 0
    contradictory: int = 0
    label_runs: dict[str, int] = field(default_factory=dict)

    @property
    def majority(self) -> float:
        """Accuracy of always answering the commonest class of train on the test split."""
        counts = self.class_counts
        return counts["test"][int(np.argmax(counts["train"]))] / sum(counts["test"])


@dataclass(frozen=True)
class TextData:
    """The chosen rows, as text, by split. `tokenizer` is the one they are written for, where that is not the model's."""

    splits: dict[str, Table]
    facts: DataFacts
    tokenizer: PreTrainedTokenizerBase | None = None


@dataclass(frozen=True)
class TokenData:
    """The chosen rows as token ids, by split."""

    train: Rows
    validation: Rows
    test: Rows
    facts: DataFacts


def load(spec: DataSpec) -> TextData:
    """The rows a recipe asks for. Raises `DataError` for a source that cannot give them."""
    if spec.source.startswith(embedded.PREFIX):
        source, label_names = _embedded_source(spec)
    else:
        source, label_names = read_source(spec)
    pools, removed = _disjoint_pools(source, spec)
    if spec.validation_by == "sentences" and "validation" not in pools:
        removed["train_part_of_validation"] = _cut_sentences(pools, spec)
    splits = _choose(pools, spec)
    _check_classes(splits, label_names, spec)
    drawn_from = {name: source[_pool_of(name, source)] for name in SPLITS}
    texts, contradictory = _contradictions(source)
    facts = DataFacts(
        spec.source,
        label_names,
        _counts(splits, len(label_names)),
        fingerprint(splits),
        removed,
        overlap=_overlaps(splits),
        source_counts=_counts(drawn_from, len(label_names)),
        texts=texts,
        contradictory=contradictory,
        label_runs={
            name: 1 + sum(a != b for a, b in pairwise(table.labels))
            for name, table in splits.items()
            if len(table)
        },
    )
    return TextData(splits, facts)


def _counts(tables: dict[str, Table], classes: int) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(np.bincount(table.labels, minlength=classes).tolist())
        for name, table in tables.items()
    }


def _pool_of(split: str, pools: dict[str, Table]) -> str:
    """What a split is drawn from: its own rows, else all there are, else train."""
    return split if split in pools else "all" if "all" in pools else "train"


def _contradictions(source: dict[str, Table]) -> tuple[int, int]:
    """How many different texts there are, and how many of them stand there with more than one label."""
    labels: dict[str, set[int]] = {}
    for table in source.values():
        for text, label in zip(table.keyed(), table.labels, strict=True):
            labels.setdefault(_key(text), set()).add(label)
    return len(labels), sum(len(found) > 1 for found in labels.values())


def _embedded_source(spec: DataSpec) -> tuple[dict[str, Table], tuple[str, ...]]:
    texts, labels = embedded.sentences(spec.source)
    return {"all": Table(texts, labels)}, ("negative", "positive")


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _disjoint_pools(
    source: dict[str, Table], spec: DataSpec
) -> tuple[dict[str, Table], dict[str, int]]:
    """Repeated texts out: within train, and from train whatever validation or test holds too."""
    if "all" in source:
        pool = source["all"].without_repeats(_key)
        return {"all": pool}, {"repeated": len(source["all"]) - len(pool)}
    pools = dict(source)
    pools["train"] = source["train"].without_repeats(_key)
    removed = {"repeated": len(source["train"]) - len(pools["train"])}
    if "validation" in pools and "test" in pools:
        pools["validation"], removed["validation_also_in_test"] = pools["validation"].without(
            pools["test"], _key
        )
    for other in ("validation", "test"):
        if other in pools:
            pools["train"], removed[f"train_also_in_{other}"] = pools["train"].without(
                pools[other], _key
            )
    if "test" in source:
        _refuse_leak(source["train"], source["test"], spec)
    return pools, removed


def _refuse_leak(train: Table, test: Table, spec: DataSpec) -> None:
    seen = {_key(text) for text in train.keyed()}
    leaked = [row for row, text in enumerate(test.keyed()) if _key(text) in seen]
    if len(leaked) > spec.leakage_limit * len(test):
        raise DataError(
            f"{spec.source}: {len(leaked)} of {len(test)} test texts ({len(leaked) / len(test):.1%}) stand in train too "
            f"(the first is test row {leaked[0]}); more than {spec.leakage_limit:.0%} makes test accuracy worthless. Split the data anew. "
            f"Where that is known and small, --peft-set data.leakage_limit=SHARE allows it: such texts leave train."
        )


def _cut_sentences(pools: dict[str, Table], spec: DataSpec) -> int:
    """Move whole sentences from train to a validation pool; what is part of one leaves train. Returns how many rows went."""
    name = "all" if "all" in pools else "train"
    pool = pools[name]
    if pool.pairs is not None:
        raise DataError(
            f"{spec.source}: data.validation_by = 'sentences' is for single texts, not for pairs: use 'rows'."
        )
    sentences = pool.take(overlap.whole_sentences(pool.texts))
    if spec.validation != "all" and spec.validation > len(sentences):
        raise DataError(
            f"{spec.source}: {spec.validation} validation sentences wanted, {len(sentences)} texts of train lie within no other. "
            f"Ask for fewer: --peft-set data.validation=N, or cut by rows: --peft-set data.validation_by=rows"
        )
    pools["validation"] = _slice(sentences, {"validation": spec.validation}, name, spec)[
        "validation"
    ]
    related = overlap.rows_within(pool.texts, pools["validation"].texts)
    pools[name] = pool.take(row for row in range(len(pool)) if row not in related)
    return len(related) - len(pools["validation"])


def _overlaps(splits: dict[str, Table]) -> dict[str, Overlap]:
    train = splits["train"]
    judged = (
        {} if train.pairs is not None else {name: splits[name] for name in ("validation", "test")}
    )
    return {
        name: overlap.measure(table.texts, train.texts)
        for name, table in judged.items()
        if len(table)
    }


def _choose(pools: dict[str, Table], spec: DataSpec) -> dict[str, Table]:
    """Exact sizes: consecutive slices of each pool's stratified order; 'all' takes what the others leave."""
    wanted: dict[str, int | str] = {name: getattr(spec, name) for name in SPLITS}
    groups: dict[str, list[str]] = {}
    for split in reversed(SPLITS):
        groups.setdefault(_pool_of(split, pools), []).append(split)
    chosen: dict[str, Table] = {}
    for pool, names in groups.items():
        chosen |= _slice(pools[pool], {name: wanted[name] for name in names}, pool, spec)
    return {name: chosen[name] for name in SPLITS}


def _fewer(wanted: dict[str, int | str], there: int) -> str:
    """What to set instead, by name; for a split that has rows of its own, the number too."""
    first, *others = wanted
    ways = [f"--peft-set data.{first}={'N' if others else there}"]
    return ", or ".join(
        [*ways, "data.train=all for what is left"] if others and "train" in wanted else ways
    )


def _slice(
    pool: Table, wanted: dict[str, int | str], name: str, spec: DataSpec
) -> dict[str, Table]:
    exact = sum(size for size in wanted.values() if isinstance(size, int))
    open_ended = [split for split, size in wanted.items() if size == "all"]
    if exact > len(pool) or (open_ended and exact == len(pool)):
        asked = " + ".join(f"{size} {split}" for split, size in wanted.items())
        where = "" if name == "all" else f" of its {name} split"
        raise DataError(
            f"{spec.source}: {asked} rows wanted, {len(pool)} distinct rows{where} are there. Ask for fewer: {_fewer(wanted, len(pool))}."
        )
    if len(open_ended) > 1:
        raise DataError(
            f"only one of {' and '.join(open_ended)} can be 'all' where both come from the same rows."
        )
    order, start, parts = stratified_order(pool.labels, spec.seed), 0, {}
    for split, size in wanted.items():
        count = len(pool) - exact if size == "all" else int(size)
        parts[split] = pool.take(order[start : start + count])
        start += count
    return parts


def stratified_order(labels: Sequence[int], seed: int) -> list[int]:
    """A shuffled order of the rows in which every run of consecutive rows has nearly the whole's class shares.

    Within a class the rows are shuffled; the k-th of n rows of a class is placed at (k + u) / n of the way,
    u uniform in [0, 1), so a class never bunches up.
    """
    rng = np.random.default_rng(seed)
    classes = np.asarray(labels)
    position = np.empty(len(classes))
    for label in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == label))
        position[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(position, kind="stable").tolist()


def _check_classes(splits: dict[str, Table], label_names: tuple[str, ...], spec: DataSpec) -> None:
    for name, table in splits.items():
        present = Counter(table.labels)
        if len(table) and len(present) < 2:
            raise DataError(
                f"{spec.source}: the {name} split holds one class only ({label_names[table.labels[0]]!r}, {len(table)} rows); "
                f"any method would score 100 %. Is the source sorted by label, or data.label the wrong column?"
            )


def fingerprint(splits: dict[str, Table]) -> str:
    """sha256 of all rows, in order."""
    digest = hashlib.sha256()
    for name, table in splits.items():
        digest.update(repr((name, table.texts, table.pairs, table.labels)).encode())
    return digest.hexdigest()


def tokenize(data: TextData, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenData:
    """Token ids, cut at `max_length`, not padded (batches are padded to their longest row)."""
    tokens, truncated = {}, {}
    for name, table in data.splits.items():
        tokens[name], truncated[name] = _tokenize_table(
            table, data.tokenizer or tokenizer, max_length
        )
    return TokenData(**tokens, facts=replace(data.facts, truncated=truncated))


def _tokenize_table(
    table: Table, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[Rows, float]:
    whole = _rows(table, tokenizer, None)
    longer = sum(length > max_length for length in whole.lengths)
    return _rows(table, tokenizer, max_length) if longer else whole, longer / max(1, len(table))


def _rows(table: Table, tokenizer: PreTrainedTokenizerBase, cut: int | None) -> Rows:
    """Token ids, kept in the user's cache where there are so many that it takes long."""

    def make() -> Rows:
        columns: dict[str, Any] = {"input_ids": [], "attention_mask": []}
        if len(table):
            columns = dict(
                tokenizer(
                    table.texts,
                    table.pairs,
                    truncation=cut is not None,
                    max_length=cut,
                    verbose=False,
                )
            )
        return Rows.of(columns, table.labels)

    state = tokenizer_state(tokenizer) if len(table) >= WORTH_KEEPING else None
    if state is None:
        return make()
    key = [fingerprint({"": table}), state, cut]
    return remembered("tokens", key, make, read=Rows.read, write=Rows.write, suffix=".npz")
