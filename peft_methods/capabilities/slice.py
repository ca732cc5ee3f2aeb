"""A few cells that change with every commit, for the tests of each change."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from peft_methods.capabilities.cells import Cell, Result
from peft_methods.capabilities.matrix import is_known
from peft_methods.capabilities.plan import main_cells
from peft_methods.profiling.environment import source_state
from peft_methods.utils.hashing import text_hash


def seed_of_source() -> str:
    """Return the hash of the commit, or of the source where there is no repository."""
    commit: str | None = source_state()["commit"]
    return commit or _hash_of_files()


@cache
def _hash_of_files() -> str:
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return text_hash("".join(text_hash(path.read_text(encoding="utf-8")) for path in files))


def slice_of(
    stored: Mapping[Cell, Result], methods: Sequence[str], count: int, seed: str
) -> list[Cell]:
    """Return some cells to measure again, of different methods while there are any.

    All that are supported can be drawn, also those that failed. Methods without stored cells are in
    their main cells. Cells of a family are neighbours.
    """
    known = {cell: one for cell, one in stored.items() if is_known(cell) and cell.method in methods}
    new = [method for method in methods if not any(cell.method == method for cell in known)]
    pool = [cell for cell, one in known.items() if one.status != "unsupported"] + main_cells(new)
    draw = random.Random(seed)
    shuffled = draw.sample(sorted(pool), len(pool))
    order = {method: place for place, method in enumerate(draw.sample(list(methods), len(methods)))}
    seen: dict[str, int] = {}
    turns = []
    for cell in shuffled:
        seen[cell.method] = seen.get(cell.method, 0) + 1
        turns.append((seen[cell.method], order[cell.method], cell))
    chosen = [cell for *_, cell in sorted(turns)[:count]]
    return sorted(chosen, key=lambda cell: (cell.family, cell.task, cell.method))
