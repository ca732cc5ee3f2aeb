"""Which rows of a pool go to which split: the sizes of a recipe, and a stratified order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from peft_methods.data.facts import SPLITS
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.labelling import Labelling
from peft_methods.recipes.schema import DataSpec
from peft_methods.recipes.variation import ROWS
from peft_methods.utils.errors import DataError

LEAST_ROWS = 10  # of a split; fewer train and measure nothing
SHARE = 5  # a split that is cut from few rows gets at most one in five of them

Sizes = Mapping[str, int | str]  # by split; a number of rows, or "all"
FIXED: Mapping[str, int] = {}  # no split's rows are drawn by the seed of a run


def choose(
    pools: dict[str, LabelledTexts],
    spec: DataSpec,
    task: Labelling,
    cut_from: str = "",
    seeds: Mapping[str, int] = FIXED,
) -> dict[str, LabelledTexts]:
    """Select the rows of every split: consecutive slices of each pool's stratified order.

    `cut_from` is the pool that validation sentences were moved from, for messages. `seeds`: see
    `take_sizes`.
    """
    wanted: dict[str, int | str] = {name: getattr(spec, name) for name in SPLITS}
    groups: dict[str, list[str]] = {}
    for split in reversed(SPLITS):
        groups.setdefault(pool_of(split, pools), []).append(split)
    chosen: dict[str, LabelledTexts] = {}
    for pool, names in groups.items():
        sizes: Sizes = {name: wanted[name] for name in names}
        if spec.sizes == "at_most":
            sizes = reachable(partial(limited_sizes, sizes), sizes, len(pools[pool]), pool, spec)
        where = _where(pool)
        if pool == cut_from:
            where += (
                f" beside the {len(pools['validation'])} validation sentences and the rows within "
                f"them"
            )
        chosen |= take_sizes(pools[pool], sizes, where, spec, task, seeds=seeds)
    return {name: chosen[name] for name in SPLITS}


def _where(pool: str) -> str:
    return "" if pool == "all" else f" in its {pool} split"


def pool_of(split: str, pools: Mapping[str, LabelledTexts]) -> str:
    """Return the pool of a split: its own rows, else `all` rows, else train."""
    return split if split in pools else "all" if "all" in pools else "train"


def share_of(rows: int) -> int:
    """Return how many rows a split gets that is cut from so few."""
    return rows // SHARE


def limited_sizes(limits: Sizes, available: int) -> dict[str, int]:
    """Return the sizes of splits that share a pool, none above its limit.

    If the pool cannot fill them, validation and test get at most a fifth of it each, and train the
    rest. What train leaves goes to test, then to validation. `all` for train asks for the three
    fifths that it would get then.
    """
    most = {name: math.inf if limit == "all" else int(limit) for name, limit in limits.items()}
    asked = sum(limit for name, limit in most.items() if name != "train" or limit < math.inf)
    room = 2 * share_of(available) if most.get("train") == math.inf else available
    is_enough = asked <= room or len(most) == 1
    share = available if is_enough else share_of(available)
    sizes = {name: 0 if name == "train" else int(min(limit, share)) for name, limit in most.items()}
    for name in ("train", "test", "validation"):
        if name in sizes:
            left = available - sum(sizes.values())
            sizes[name] += int(min(most[name] - sizes[name], left))
    return sizes


def reachable(
    sizes_of: Callable[[int], dict[str, int]],
    limits: Sizes,
    available: int,
    pool: str,
    spec: DataSpec,
) -> dict[str, int]:
    """Return the sizes that `sizes_of` makes of a pool's rows, within these limits.

    Raises `DataError` if they are too few.
    """
    sizes = sizes_of(available)
    if _is_enough(sizes, limits):
        return sizes
    least = next(rows for rows in itertools.count(available) if _is_enough(sizes_of(rows), limits))
    splits = [split for split in SPLITS if split in sizes]
    found = ", ".join(f"{sizes[split]} {split}" for split in splits)
    named = ", ".join(f"data.{split}" for split in splits)
    by_rows = (
        'cut validation by rows (data.validation_by = "rows"), '
        if _is_enough(limited_sizes(limits, available), limits)
        else ""
    )
    raise DataError(
        f"{spec.source}: {available} distinct rows{_where(pool)} are too few: they give {found} "
        f"rows, and a split of fewer than {LEAST_ROWS} rows shows nothing. At least {least} are "
        f'needed here. Add rows, {by_rows}or set {named} with data.sizes = "exact".',
        setting="data.sizes",
    )


def _is_enough(sizes: Mapping[str, int], limits: Sizes) -> bool:
    return all(
        size >= (LEAST_ROWS if limits[name] == "all" else min(LEAST_ROWS, int(limits[name])))
        for name, size in sizes.items()
    )


def _fewer(wanted: Sizes, available: int) -> str:
    """Say which settings to lower, by name.

    For a split with rows of its own the message includes the largest possible number.
    """
    first, *others = wanted
    if not others:
        return f"data.{first} = {available}"
    remaining = ', or data.train = "all" for the remaining rows' if "train" in wanted else ""
    return f"a smaller data.{first}{remaining}"


def take_sizes(
    pool: LabelledTexts,
    wanted: Sizes,
    where: str,
    spec: DataSpec,
    task: Labelling,
    *,
    seeds: Mapping[str, int] = FIXED,
) -> dict[str, LabelledTexts]:
    """Take exact sizes from a pool. `all` takes the rows that the other splits leave.

    The rows of a split in `seeds` are drawn by that seed from those that the splits before it
    leave. Raises `DataError`, which says `where` the rows are.
    """
    exact = sum(size for size in wanted.values() if isinstance(size, int))
    open_ended = [split for split, size in wanted.items() if size == "all"]
    if exact > len(pool) or (open_ended and exact == len(pool)):
        asked = " + ".join(f"{size} {split}" for split, size in wanted.items())
        raise DataError(
            f"{spec.source}: {asked} rows requested, but there are only {len(pool)} distinct "
            f'rows{where}. Set data.sizes = "at_most" to use what is there, or request fewer: '
            f"{_fewer(wanted, len(pool))}.",
            setting=f"data.{next(iter(wanted))}",
        )
    if len(open_ended) > 1:
        raise DataError(
            f"only one of data.{' and data.'.join(open_ended)} can be 'all' if they are taken from "
            f"the same rows. Set the others to a number of rows.",
            setting=f"data.{open_ended[0]}",
        )
    strata = task.strata(pool.labels)
    left, parts = stratified_order(strata, spec.seed), {}
    if task.texts_repeat:
        left = with_same_texts_together(left, pool.texts)
    for split, size in wanted.items():
        count = len(pool) - exact if size == "all" else int(size)
        taken = left[:count]
        if split in seeds:
            _check_drawn(split, count, len(left), spec)
            seed = (spec.seed, seeds[split], SPLITS.index(split))
            again = stratified_order([strata[row] for row in left], seed)
            taken = [left[place] for place in again[:count]]
        parts[split] = pool.take(taken)
        gone = set(taken)
        left = [row for row in left if row not in gone]
    return parts


def train_subset(
    splits: Mapping[str, LabelledTexts], spec: DataSpec, task: Labelling, seed: int
) -> dict[str, LabelledTexts]:
    """Return the splits with the subset of train that a run with this seed is trained on.

    Subsets of one seed are nested: a larger one contains every smaller one. Each has nearly the
    shares of the classes of train. Validation and test stay as they are. Raises `DataError` if
    there are too few train rows.
    """
    train, wanted = splits["train"], spec.train_subset
    if wanted is None:
        return dict(splits)
    if wanted > len(train):
        others = " and ".join(f"{len(splits[split])} {split}" for split in SPLITS[1:])
        raise DataError(
            f"{spec.source}: {wanted} training rows requested, but only {len(train)} distinct rows "
            f"are left beside {others} rows. Request up to {len(train)}.",
            setting="data.train_subset",
        )
    order = stratified_order(task.strata(train.labels), (spec.seed, seed))
    return {**splits, "train": train.take(order[:wanted])}


def _check_drawn(split: str, count: int, available: int, spec: DataSpec) -> None:
    """Raise `DataError` if a split takes every row: then all seeds would draw the same ones."""
    if count == available:
        part = next(part for part, of in ROWS.items() if of == split)
        raise DataError(
            f"{spec.source}: budget.vary has {part!r}, but data.{split} takes all {available} rows "
            f"there are, so every seed would draw the same ones. Set data.{split} to fewer rows, "
            f"or leave {part!r} out of budget.vary.",
            setting=f"data.{split}",
        )


def with_same_texts_together(order: Sequence[int], texts: Sequence[str]) -> list[int]:
    """Return the order with all rows of a text at the place of the first, so splits share few."""
    first: dict[str, int] = {}
    for place, row in enumerate(order):
        first.setdefault(texts[row], place)
    return sorted(order, key=lambda row: first[texts[row]])


def stratified_order(strata: Sequence[int], seed: int | Sequence[int]) -> list[int]:
    """Return a shuffled order in which every slice of rows has nearly the overall shares.

    `strata` has the class of each row. Within a class the rows are shuffled. The k-th of n rows of
    a class is placed at the relative position (k + u) / n, with u uniform in [0, 1), so that no
    class clusters.
    """
    rng = np.random.default_rng(seed)
    classes = np.asarray(strata)
    position = np.empty(len(classes))
    for label in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == label))
        position[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(position, kind="stable").tolist()
