"""Which rows of a pool go to which split: the sizes of a recipe, and a stratified order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from peft_methods.data.facts import SPLITS
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.labelling import Labelling
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.errors import DataError

LEAST_ROWS = 10  # of a split; fewer train and measure nothing
SHARE = 5  # a split that is cut from few rows gets at most one in five of them

Sizes = Mapping[str, int | str]  # by split; a number of rows, or "all"


def choose(
    pools: dict[str, LabelledTexts], spec: DataSpec, task: Labelling
) -> dict[str, LabelledTexts]:
    """Select the rows of every split: consecutive slices of each pool's stratified order."""
    wanted: dict[str, int | str] = {name: getattr(spec, name) for name in SPLITS}
    groups: dict[str, list[str]] = {}
    for split in reversed(SPLITS):
        groups.setdefault(pool_of(split, pools), []).append(split)
    chosen: dict[str, LabelledTexts] = {}
    for pool, names in groups.items():
        sizes: Sizes = {name: wanted[name] for name in names}
        if spec.sizes == "at_most":
            sizes = _reachable(sizes, pools[pool], pool, spec)
        chosen |= take_sizes(pools[pool], sizes, pool, spec, task)
    return {name: chosen[name] for name in SPLITS}


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


def _reachable(limits: Sizes, pool: LabelledTexts, name: str, spec: DataSpec) -> dict[str, int]:
    """Return the sizes within these limits. Raises `DataError` if they are too few."""
    sizes = limited_sizes(limits, len(pool))
    if _is_enough(sizes, limits):
        return sizes
    least = next(
        rows for rows in range(len(pool), 10**6) if _is_enough(limited_sizes(limits, rows), limits)
    )
    found = ", ".join(f"{size} {split}" for split, size in reversed(sizes.items()))
    where = "" if name == "all" else f" in its {name} split"
    named = ", ".join(f"data.{split}" for split in reversed(sizes))
    raise DataError(
        f"{spec.source}: {len(pool)} distinct rows{where} are too few: they give {found} rows, and "
        f"a split of fewer than {LEAST_ROWS} rows shows nothing. At least {least} are needed here. "
        f'Add rows, or set {named} with data.sizes = "exact".',
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
    pool: LabelledTexts, wanted: Sizes, name: str, spec: DataSpec, task: Labelling
) -> dict[str, LabelledTexts]:
    """Take exact sizes from a pool. `all` takes the rows that the other splits leave.

    Raises `DataError`.
    """
    exact = sum(size for size in wanted.values() if isinstance(size, int))
    open_ended = [split for split, size in wanted.items() if size == "all"]
    if exact > len(pool) or (open_ended and exact == len(pool)):
        asked = " + ".join(f"{size} {split}" for split, size in wanted.items())
        where = "" if name == "all" else f" in its {name} split"
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
    order, start, parts = stratified_order(task.strata(pool.labels), spec.seed), 0, {}
    for split, size in wanted.items():
        count = len(pool) - exact if size == "all" else int(size)
        parts[split] = pool.take(order[start : start + count])
        start += count
    return parts


def stratified_order(strata: Sequence[int], seed: int) -> list[int]:
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
