"""Rows that summarise others (mean, Δ, best): they are no methods."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peft_methods.analysis.external.method_names import method_of
from peft_methods.analysis.external.vocabulary import without_words

WORD = (
    r"mean|avg|average|averages|median|best|worst|max|maximum|min|minimum|std|stdev|st\.? ?dev|sd|"
    r"standard deviation|variance|var|range|total|sum|overall|delta|δ|∆|diff|difference|gain|"
    r"improvement|change|gap|speed-?up|ratio|winner|"
    r"mittelwert|durchschnitt|differenz|bester?|beste|gesamt|summe|moyenne|médiane|meilleure?|"
    r"différence|écart|media|promedio|mediana|mejor|diferencia|média|melhor|diferença|"
    r"平均|平均值|均值|中位数|最好|最佳|差值|差异|差|最大|最小|合計"
)
# The word alone or with what it is of: "Average (all tasks)", "Mean ± std", "Best overall".
ALONE = re.compile(
    rf"(?:{WORD})(?:\s*(?:±|\+/-|and|&|/)?\s*(?:{WORD}))*\s*(?:\(.*\)|\[.*\]|of .*|over .*|"
    r"across .*|vs\.? .*|to .*|in .*|from .*|[%:].*)?"
)
COMPARED = re.compile(r"^[δ∆](?!\s*-?\s*tun|-)|\bvs\.?\s|\bversus\b")  # delta tuning is a method
OF_METHOD = re.compile(rf"(?<!\w)(?:{WORD})(?!\w)")
LABELS = ("data", "task", "model", "seed")  # columns that may say "Average" beside a method


def is_summary(name: str) -> bool:
    """Whether a name alone says that its row summarises others, or compares two of them."""
    bare = " ".join(name.casefold().replace("_", " ").split()).strip("*:. ")
    return bool(ALONE.fullmatch(bare) or COMPARED.search(bare)) or _is_difference(bare)


def _is_difference(name: str) -> bool:
    """Whether a name is one method minus another."""
    parts = re.split(r"\s+[-–−]\s+", name.strip("() "))
    found = {method_of(part) for part in parts}
    return len(parts) == 2 and None not in found and len(found) == 2


def summaries(names: Sequence[str], labels: Sequence[Sequence[str]]) -> dict[int, str]:
    """Return the places of rows that are no method's, each with the text that says so.

    `labels` are the texts of the columns that may say "Average" beside a method's name. A method's
    own mean ("LoRA mean") is one where two rows or more are that method's.
    """
    found = {}
    for place, name in enumerate(names):
        said = next((texts[place] for texts in labels if is_summary(texts[place])), "")
        if name and (is_summary(name) or (said and len(names) > 1)):
            found[place] = name if is_summary(name) else f"{name}, {said}"
    bare = [_bare(name) for name in names]
    for place, name in enumerate(names):
        own = without_words(name)
        if place not in found and bare[place] != own and method_of(name) is not None:
            others = [at for at, one in enumerate(bare) if one == bare[place] and at != place]
            if sum(at not in found for at in others) >= 2:
                found[place] = name
    return found


def _bare(name: str) -> str:
    """Return a method's name without models, data sets, seeds and words of summaries."""
    words = OF_METHOD.sub(" ", without_words(name))
    return " ".join(re.sub(r"\(\s*\)|\[\s*\]", " ", words).split()).strip(" ,;:-–—/|")
