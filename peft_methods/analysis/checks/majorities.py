"""How often the most frequent class occurs in common data sets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from peft_methods.analysis.checks.rounded_count import decimals_of

GLUE = "counts of labels in GLUE's released files (Wang et al. 2019)"
LEAST_DECIMALS = 3  # of a share; chance agrees with two digits


@dataclass(frozen=True)
class Majority:
    """The most frequent class of a data set's split: `rows` of all `of` rows."""

    data: str
    split: str
    rows: int
    of: int
    source: str = GLUE

    @property
    def share(self) -> float:
        """The accuracy of predicting that class for every row."""
        return self.rows / self.of


# Splits of GLUE whose labels are public; of MRPC the test split is, too. QQP and MNLI are left out:
# no source gives their counts.
KNOWN: dict[str, tuple[Majority, ...]] = {
    r"\bmrpc\b": (
        Majority("MRPC", "validation", 279, 408),
        Majority("MRPC", "test", 1147, 1725, "counts of labels (Dolan & Brockett 2005)"),
    ),
    r"\brte\b": (Majority("RTE", "validation", 146, 277),),
    r"\bqnli\b": (Majority("QNLI", "validation", 2761, 5463),),
    r"\bsst[\s_-]?2\b": (Majority("SST-2", "validation", 444, 872),),
    # github.com/Sztarek/szakdoga, README.md: 0.6912751677852349, with a Matthews correlation of 0.
    r"\bcola\b": (
        Majority("CoLA", "validation", 721, 1043, "published runs that predict one class"),
    ),
    r"\bimdb\b": (Majority("IMDb", "test", 12500, 25000, "balanced: Maas et al. 2011"),),
    # The data set's readme: 1,900 test rows of each of four classes.
    r"\bag[\s_-]?news\b": (Majority("AG News", "test", 1900, 7600, "balanced: Zhang et al. 2015"),),
    # The paper's majority baseline, 62.17 % (arXiv:1905.10044, its table of results).
    r"\bboolq\b": (
        Majority("BoolQ", "validation", 2033, 3270, "majority baseline of Clark et al. 2019"),
    ),
}


def majority_of(data: str, accuracy: float) -> Majority | None:
    """Return the majority class of the data set in a text whose share is this accuracy."""
    text = data.casefold()
    found = [known for name, known in KNOWN.items() if re.search(name, text)]
    if len(found) != 1:
        return None
    within = 0.5 * 10.0 ** -max(LEAST_DECIMALS, decimals_of(accuracy)) + 1e-9
    return next((one for one in found[0] if abs(one.share - accuracy) <= within), None)
