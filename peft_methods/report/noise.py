"""Where the noise of the means comes from, in words that all reports share."""

from __future__ import annotations

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


def headings(found: NoiseSources) -> list[str]:
    """Return the names of the shares: those of the mean, then those of single parts."""
    alone = [f"{TITLES[part]} alone" for part in found.parts]
    return [ROWS, ANSWERS, SEEDS, *alone]


def shares_in_order(shares: Shares, found: NoiseSources) -> list[Share | None]:
    """Return the shares under `headings`."""
    parts = [shares.parts.get(part) for part in found.parts]
    return [shares.rows, shares.answers, shares.seeds, *parts]


def varied(found: NoiseSources) -> str:
    """Name what the seeds vary: 'initialisation, data order and dropout', or 'nothing'."""
    *first, last = [TITLES[part].lower() for part in found.vary] or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last


def sizes(found: NoiseSources) -> str:
    """Return the size of the sample: '3 seeds and 500 test rows'."""
    return f"{counted(found.seeds, 'seed')} and {counted(found.rows, 'test row')}"


def advice(shares: Shares) -> str:
    """Say what makes the means more exact; empty if the largest part is not clear.

    More rows divide the parts of rows and of answers, more seeds those of seeds and of answers.
    """
    if shares.rows.low > shares.seeds.high:
        return "More test rows make the means more exact than more seeds do."
    if shares.seeds.low > shares.rows.high:
        return "More seeds make the means more exact than more test rows do."
    return ""
