"""How long a cell may take: from a timed forward pass, corrected by the cells that have ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from peft_methods.cells import Cell, Preparation

ENOUGH = 0.1  # the share of a cell's steps from which on they tell how long the others will take
LEAST = (
    0.1  # the share of a cell's time that is left as long as it has not ended: it was late before
)


def expected_seconds(cell: Cell, preparation: Preparation) -> float:
    """Start-up, training at the method's passes a row, evaluation at one. Sizes of 'all' are taken from the data.

    Checkpointing computes each layer's forward pass twice. All epochs are counted: early stopping only shortens it.
    """
    counts = preparation.data["class_counts"]
    sizes = {split: getattr(cell.recipe.data, split) for split in ("train", "validation", "test")}
    rows = {split: sum(counts[split]) if size == "all" else size for split, size in sizes.items()}
    budget = cell.recipe.budget
    passes = cell.method.info.cost_in_forward_passes + budget.gradient_checkpointing
    forwards = budget.epochs * (rows["train"] * passes + rows["validation"]) + rows["test"]
    return preparation.start_seconds + forwards * preparation.forward_seconds


def total_seconds(
    cells: Iterable[Cell],
    preparations: Mapping[str, Preparation],
    workers: int,
    done: Collection[str] = (),
) -> float:
    """The whole job over its workers, each stage once. `preparations` are by recipe name, `done` the keys of what is there already."""
    total, seen = 0.0, set(done)
    for cell in cells:
        for one in (*cell.stages, cell):
            if one.key not in seen:
                seen.add(one.key)
                total += expected_seconds(one, preparations[cell.recipe.name])
    return total / workers


class TimeLeft:
    """How long a job may still take, from what its cells were expected to take and what they turn out to take.

    A cell under way shows its total by the steps it has done. A cell to come is expected to miss its estimate as those
    of its recipe and method do that have ended or are under way, or where there is none, as all do.
    """

    def __init__(self, workers: int, clock: Callable[[], float]) -> None:
        self._workers, self._clock = workers, clock
        self.expected: dict[str, float] = {}
        self.ended: set[str] = set()
        self._took: dict[str, float] = {}
        self._kind: dict[str, tuple[str, str]] = {}
        self.reused: set[str] = set()
        self._started: dict[str, float] = {}
        self._trained: dict[str, tuple[float, float]] = {}  # share of its steps, seconds in them

    def plan(self, cells: Iterable[Cell], preparation: Preparation) -> None:
        """Cells of one recipe that will run, and their stages but those that an earlier run left."""
        for cell in cells:
            for one in (one for one in (*cell.stages, cell) if one.key not in self.reused):
                self.expected[one.key] = expected_seconds(one, preparation)
                self._kind[one.key] = one.recipe.name, one.method.name

    def reuse(self, key: str) -> None:
        """A cell that will not run: an earlier run has."""
        self.reused.add(key)

    def forget(self, key: str) -> None:
        """A cell that was under way is not any more, and will be tried again."""
        self._started.pop(key, None)
        self._trained.pop(key, None)

    def start(self, key: str) -> None:
        """A cell begins, or begins again."""
        self._started[key] = self._clock()
        self._trained.pop(key, None)

    def hear(self, key: str, news: Mapping[str, Any]) -> None:
        """Steps were done."""
        if news.get("steps"):
            self._trained[key] = news["step"] / news["steps"], news["train_seconds"]

    def end(self, key: str, *, ok: bool) -> None:
        """A cell has ended; one that failed tells nothing of the others' time."""
        seconds = self._elapsed(key)
        self._started.pop(key, None)
        self.ended.add(key)
        if ok:
            self._took[key] = seconds

    def seconds(self) -> float:
        """Of all cells that have not ended, over the workers; no less than the longest of those under way."""
        known = self._took | {
            key: total for key in self._started if (total := self._projected(key)) is not None
        }
        totals = {
            key: known.get(key, self.expected[key] * self._pace(key, known))
            for key in self.expected
            if key not in self.ended
        }
        left = {
            key: max(total * LEAST, total - self._elapsed(key)) for key, total in totals.items()
        }
        return max(
            [
                sum(left.values()) / self._workers,
                *(left[key] for key in self._started if key in left),
            ]
        )

    def _elapsed(self, key: str) -> float:
        return self._clock() - self._started[key] if key in self._started else 0.0

    def _projected(self, key: str) -> float | None:
        """What a cell under way will have taken when its last steps are done; None while there are too few to tell."""
        share, seconds = self._trained.get(key, (0.0, 0.0))
        return None if share < ENOUGH else self._elapsed(key) + seconds * (1 / share - 1)

    def _pace(self, key: str, known: Mapping[str, float]) -> float:
        """By what factor cells like this one miss what was expected of them."""
        alike = [one for one in known if self._kind.get(one) == self._kind[key]] or [
            one for one in known if one in self.expected
        ]
        expected = sum(self.expected[one] for one in alike)
        return sum(known[one] for one in alike) / expected if expected else 1.0


def in_words(seconds: float) -> str:
    """'45 s', '3 min 20 s', '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
