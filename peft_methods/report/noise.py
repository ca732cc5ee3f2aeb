"""Where the noise of the means comes from, in words that all reports share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.analysis.noise_sources import NoiseSources
from peft_methods.analysis.variance_parts import Share, Shares
from peft_methods.report.formatting import MISSING
from peft_methods.utils.words import counted

TITLES = {
    "initialisation": "Initialisation",
    "data_order": "Data order",
    "dropout": "Dropout",
    "training_subset": "Training subset",
    "split": "Split",
}
ROWS, SEEDS, ANSWERS = "Test rows", "Seeds", "Single answers"


def share_text(share: Share | None) -> str:
    """Format a share: '12 % (2 to 80)'; one that cannot be told from 0: 'at most 35 %'."""
    if share is None:
        return MISSING
    if share.estimate is None:
        return f"at most {100 * share.high:.0f} %"
    low, high = (f"{100 * end:.0f}" for end in (share.low, share.high))
    return f"{100 * share.estimate:.0f} % ({low} to {high})"


@dataclass(frozen=True)
class NoiseWords:
    """What the terminal, the HTML report and the paper say of the noise of a recipe's means."""

    found: NoiseSources

    @property
    def shares(self) -> Shares:
        """The shares of all methods together, or those of the first one."""
        return self.found.together or next(iter(self.found.by_method.values()))

    @property
    def headings(self) -> list[str]:
        """The names of the shares: those of the mean, then those of single parts."""
        alone = [f"{TITLES[part]} alone" for part in self.found.parts]
        return [ROWS, ANSWERS, SEEDS, *alone]

    def in_order(self, shares: Shares) -> list[Share | None]:
        """Return the shares under `headings`."""
        parts = [shares.parts.get(part) for part in self.found.parts]
        return [shares.rows, shares.answers, shares.seeds, *parts]

    @property
    def varied(self) -> str:
        """What the seeds vary: 'initialisation, data order and dropout', or 'nothing'."""
        return parts_text(self.found.vary)

    @property
    def sizes(self) -> str:
        """The size of the sample: '3 seeds and 500 test rows'."""
        return f"{counted(self.found.seeds, 'seed')} and {counted(self.found.rows, 'test row')}"

    @property
    def advice(self) -> str:
        """What makes the means more exact; empty if the largest part is not clear.

        More rows divide the parts of rows and answers, more seeds those of seeds and answers.
        """
        rows, seeds = self.shares.rows, self.shares.seeds
        if rows.low > seeds.high:
            return "More test rows make the means more exact than more seeds do."
        if seeds.low > rows.high:
            return "More seeds make the means more exact than more test rows do."
        return ""


def parts_text(parts: Sequence[str]) -> str:
    """Join random parts: 'initialisation, data order and dropout', or 'nothing'."""
    *first, last = [TITLES[part].lower() for part in parts] or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last
