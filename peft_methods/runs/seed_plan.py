"""How many seeds a session trains if it adds seeds until the comparison is decided."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.utils.errors import OptionError
from peft_methods.utils.words import counted

FEWEST = 2  # one seed shows no spread
MOST, LARGEST_MOST = 10, 200  # unless another limit is given, and the largest limit


@dataclass(frozen=True)
class SeedPlan:
    """Every method begins with `first` seeds and has at most `most`.

    The numbers belong to the plan since the error rate depends on how often one may look at the
    results. They are part of each record.
    """

    first: int
    most: int

    def __post_init__(self) -> None:
        if self.first < FEWEST:
            raise OptionError(
                f"{counted(self.first, 'seed')} to begin with: a decision needs {FEWEST} or more, "
                "since one seed shows no spread. 3 are recommended.",
                setting="budget.seeds",
            )
        if self.most < self.first:
            raise OptionError(
                f"at most {counted(self.most, 'seed')} per method, but each method begins with "
                f"{self.first}. Allow at least that many, or begin with fewer.",
                setting="seeds_max",
            )
