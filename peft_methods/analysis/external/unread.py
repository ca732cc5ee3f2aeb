"""Columns whose names are unknown: which of them are settings, and a remark that names them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from peft_methods.analysis.external.columns import COLUMNS
from peft_methods.utils.errors import nearest
from peft_methods.utils.units import is_missing

MOST_UNKNOWN = 8  # unknown columns that the remark names
NEAR = 0.84  # similarity from which a known name is suggested: state is not strategy
NEAR_WORD = 0.7  # the same for one of several words
SETTING = re.compile(
    r"alpha|α|drop|optim|sched|decay|warm|batch|accum|layer|init|scal|temperature|norm|template|"
    r"prompt|variant|version|config|shot|lambda|λ|beta|β|gamma|γ|reduction|bottleneck|hidden|"
    r"target|modul|mode|type|kernel|attention|backend|framework|strategy|loss[\s_]fn|objective|"
    r"pool|freez|frozen|checkpointing|packing|format|ratio|fraction|bits?\b|split|size|length|"
    r"budget|step|lr|momentum|clip|augment|label|lang|domain|position|width|depth|dim|epoch"
)
# Figures that a run yields, and texts about it: they differ between seeds.
YIELDED = re.compile(
    r"time|latenc|runtime|second|hour|minute|memor|vram|speed|throughput|flops?\b|flos|seen|accura|\bacc\b|f1|"
    r"score|loss|perplex|\bppl\b|bleu|rouge|recall|precision|error|rank(?:ing)?$|energy|watt|cost|"
    r"co2|carbon|temperature of|utili[sz]ation|date|created|updated|started|stamp|\burl|link|path|"
    r"\bid\b|uuid|hash|commit|note|comment|remark|host|user|state|status|description|winner|"
    r"tokens?[/ ]s|it/s|bemerk|kommentar"
)
SEED = re.compile(r"\b(?:seed|run|trial|replicate|repetition|repeat|fold)s?\b|种子|シード")


def settings_of(cells: Mapping[str, Sequence[str]], rows: int) -> tuple[dict[str, str], ...]:
    """Return for each row what the unknown columns that are settings say, by header."""
    wanted = {header: texts for header, texts in cells.items() if _is_setting(header, texts)}
    return tuple(
        {
            header: texts[row].strip()
            for header, texts in wanted.items()
            if not is_missing(texts[row])
        }
        for row in range(rows)
    )


def _is_setting(header: str, texts: Sequence[str]) -> bool:
    """Whether a column says how a row was trained, by its name, or else by its values.

    Without a known name these are words, or numbers that were chosen: short ones, which repeat or
    are round. Measured numbers have several digits and differ in every row.
    """
    name = re.sub(r"[_./-]+", " ", header.casefold())
    known = [text.strip() for text in texts if not is_missing(text)]
    if not header or header.startswith("_") or not known or SEED.search(name):
        return False
    yielded, setting = YIELDED.search(name), SETTING.search(name)
    if yielded or setting:
        return setting is not None and yielded is None
    return len(set(known)) < len(known) or all(map(_is_chosen, known))


def _is_chosen(text: str) -> bool:
    number = re.fullmatch(r"[-+]?(\d*)\.?(\d*)(?:e[-+]?\d+)?", text.casefold())
    if number is None:
        return len(text) <= 30 and "://" not in text
    return len((number[1] + number[2]).strip("0")) <= 2


def of_unknown(headers: Sequence[str]) -> str:
    """Name the unknown columns, each with the nearest known name."""
    known = [spelling for column in COLUMNS for spelling in column.spellings if len(spelling) > 3]
    names = [
        f"{header!r} ({hint.strip().rstrip('?').replace('Did', 'did')}?)"
        if (hint := nearest(header.replace(" ", "_"), _suggested(header, known), NEAR))
        else repr(header)
        for header in headers[:MOST_UNKNOWN]
    ]
    more = f" and {len(headers) - MOST_UNKNOWN} more" if len(headers) > MOST_UNKNOWN else ""
    first = "column" if len(headers) == 1 else "columns"
    return (
        f"unknown {first}, not read: {', '.join(names)}{more}. "
        f'Say what one holds by --map "{headers[0]}=FIELD"'
    )


def _suggested(header: str, known: Sequence[str]) -> list[str]:
    """Return the known names of which every word is near one of the header's.

    Not those that say less: `eval_samples_per_second` is not `samples_per_second`.
    """
    words = re.findall(r"[^\W_]+", header.casefold())
    return [
        name
        for name in known
        if not set(parts := name.split("_")) <= set(words)
        and (len(words) == 1 or all(get_close_matches(word, parts, 1, NEAR_WORD) for word in words))
    ]
