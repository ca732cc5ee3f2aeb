"""Which column a header means, by its words and its unit; names of data sets and of methods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from peft_methods.analysis.external.columns import COLUMNS, TEXT, Column
from peft_methods.analysis.external.rates import rate_of
from peft_methods.utils.units import UNITS, unit_of

# Words that tell nothing.
FILLERS = frozenset(
    [
        "of",
        "the",
        "a",
        "in",
        "and",
        "our",
        "number",
        "no",
        "num",
        "count",
        "amount",
        "figure",
        "final",
        "reported",
        "approx",
        "approximate",
        "estimated",
        "value",
        "used",
        "used",
        "reset",
        "actual",
        "measured",
        "usage",
    ]
)
# The first words of a name with a path, as trackers write it: params.learning_rate.
PATHS = frozenset(
    [
        "params",
        "param",
        "metrics",
        "metric",
        "config",
        "configs",
        "peft",
        "summary",
        "hyperparameters",
        "hparams",
        "args",
        "arguments",
        "run",
        "results",
        "result",
        "info",
        "settings",
        "tags",
        "data",
        "performance",
        "stats",
        "statistics",
        "scores",
        "quality",
    ]
)
# First words that change what a figure is about, so that they may go for some kinds only:
# eval/f1 is an F1, but eval_runtime is no training time.
PATHS_BY_KIND = {
    "eval": {"score"}, "evaluation": {"score", "share"}, "test": {"score"}, "best": {"score"},
    "mean": {"share", "seconds", "plain"}, "avg": {"share", "seconds", "plain"},
    "average": {"share", "seconds", "plain"},
    "train": {"count", "plain", "bytes", "joules"},
    "training": {"count", "plain", "bytes", "joules"},
}  # fmt: skip
# Words for metrics beside a data set's name, and the names of the scores.
METRICS = {
    "acc": "accuracy", "accuracy": "accuracy", "f1": "f1", "em": "exact_match",
    "mcc": "matthews_correlation", "matthews": "matthews_correlation", "pearson": "pearson",
    "pearsonr": "pearson", "spearman": "spearman", "spearmanr": "spearman",
}  # fmt: skip
QUALITY = frozenset([*METRICS, "score", "corr", "correlation", "test", "dev"])
GERMAN_TIMES = frozenset(["zeit", "dauer", "trainingszeit", "trainingsdauer", "laufzeit"])
# Of `Trainable (incl. head)`: counts are compared with and without it
HEAD_NOTE = re.compile(r"\((?:incl|excl|including|excluding|with|without|w/o?)\b[^()]*\bhead\)")
# Units that are a header by themselves; `min` may be a minimum.
TIMES = frozenset(["hours", "hrs", "minutes", "mins", "seconds", "secs"])
CLOCK_WORDS = ["hh", "h", "mm", "ss"]  # of `Time (hh:mm:ss)`: the form of the values, no unit
NAMES = """
sst2 sst5 mrpc cola qqp mnli mnlim mnlimm qnli rte wnli stsb glue superglue boolq cb copa
wic multirc record imdb agnews yelp yelp2 yelp5 dbpedia trec banking77 clinc150 emotion
squad squadv1 squadv2 squad2 conll2003 conll03 wnut17 gsm8k math mmlu mmlupro bbh arc arcc
arce arceasy arcchallenge hellaswag winogrande piqa siqa obqa openbookqa csqa
commonsenseqa truthfulqa triviaqa naturalquestions nq humaneval mbpp ifeval gpqa aqua
svamp mawps multiarith addsub singleeq cnndm xsum samsum e2e webnlg dart wmt14 wmt16
cifar10 cifar100 imagenet food101 flowers102 pets cars dtd eurosat svhn xnli pawsx paws
anli hans medqa medmcqa pubmedqa ceval cmmlu drop race hotpotqa metamathqa
"""
DATA_SETS = frozenset(NAMES.split())
# Data sets that have one usual metric; MRPC, QQP and STS-B, for example, have two.
ACCURACY_OF = """
sst2 sst5 mnli mnlim mnlimm qnli rte wnli boolq copa wic imdb agnews yelp yelp2 yelp5 dbpedia
trec banking77 clinc150 emotion gsm8k math mmlu mmlupro bbh arc arcc arce arceasy arcchallenge
hellaswag winogrande piqa siqa obqa openbookqa csqa commonsenseqa gpqa aqua svamp mawps
multiarith addsub singleeq cifar10 cifar100 imagenet food101 flowers102 pets cars dtd eurosat
svhn xnli pawsx paws anli hans medqa medmcqa pubmedqa ceval cmmlu race
"""
METRIC_OF = dict.fromkeys(ACCURACY_OF.split(), "accuracy") | {"cola": "matthews_correlation"}


@dataclass(frozen=True)
class Meaning:
    """What a header may mean: a column, the factor of the unit that it names, and how clearly.

    `clarity`: 0 for the best spelling of the column. `is_bare`: the values are in the base unit.
    """

    column: Column
    factor: float | None
    clarity: int
    is_bare: bool = False


def column_of(header: str) -> tuple[Column, float | None] | None:
    """Return the likeliest column for a header, and the factor of the unit that the header names.

    Returns None for an unknown header. The factor is None if the header names no unit.
    """
    found = meanings_of(header)
    return (found[0].column, found[0].factor) if found else None


@lru_cache(maxsize=4096)
def meanings_of(header: str) -> tuple[Meaning, ...]:
    """Return what a header may mean, the likeliest first; empty for an unknown one.

    Names with a leading `_` are wandb's own: `_step` and `_runtime` are of the whole process.
    """
    if header.startswith("_"):
        return ()
    words = re.findall(r"[^\W_]+|%|#", HEAD_NOTE.sub("", header.casefold()))
    if "std" in words and not GERMAN_TIMES & set(words):
        return ()  # a standard deviation, no hours
    for shorter, kinds in _shortened(words):
        if found := _meanings(shorter, kinds):
            return found
    if found := _of_rate(words):
        return found
    if len(words) == 1 and words[0] in TIMES:
        column = next(one for one in COLUMNS if one.field == "train_seconds")
        return (Meaning(column, UNITS["seconds"][words[0]], 60),)
    data_set = data_set_of(header)
    return (Meaning(_of_data_set(data_set, words), _percent(words), 0),) if data_set else ()


def _of_rate(words: list[str]) -> tuple[Meaning, ...]:
    """Return the meaning of `time per epoch`, `min/epoch`, `GPU hours`, `GB/GPU` and `s/step`."""
    rate = rate_of(words)
    if rate is None:
        return ()
    rest, target, kind = rate
    column = next(one for one in COLUMNS if one.field == target)
    if len(rest) == 1 and rest[0] in UNITS[kind]:
        return (Meaning(column, UNITS[kind][rest[0]], 40),)
    whole = "peak_memory" if kind == "bytes" else "train_seconds"
    return tuple(
        replace(one, column=column, clarity=40 + one.clarity)
        for one in _meanings([word for word in rest if word not in FILLERS], frozenset([kind]))
        if one.column.field == whole
    )


def _shortened(words: list[str]) -> Iterator[tuple[list[str], frozenset[str]]]:
    """Yield the words, then without fillers, then without a path, and the kinds that they may name.

    No kinds mean every kind.
    """
    kept = [word for word in words if word not in FILLERS and word != "#"]
    for whole in (words, kept):
        yield whole, frozenset()
    for whole in (words, kept):
        shorter, kinds = whole, frozenset[str]()
        while len(shorter) > 1 and (shorter[0] in PATHS or shorter[0] in PATHS_BY_KIND):
            kinds |= frozenset(PATHS_BY_KIND.get(shorter[0], ()))
            shorter = shorter[1:]
            yield shorter, kinds


def _meanings(words: list[str], kinds: frozenset[str]) -> tuple[Meaning, ...]:
    while len(words) > 1 and words[-1] in {"hh", "mm", "ss"}:
        words = [word for word in words if word not in CLOCK_WORDS] or words[:1]
    found = []
    for column in COLUMNS:
        if kinds and column.kind not in kinds:
            continue
        bare, factor = (words, None) if column.kind == TEXT else unit_of(words, column.kind)
        place = _place(column, bare)
        if place is None:
            place, factor = _place(column, words), None
        if place is not None:
            found.append(Meaning(column, factor, place, column.spellings[place] in column.bare))
    return tuple(found)


def _place(column: Column, words: list[str]) -> int | None:
    """Return which of the column's spellings the words are, in any order; None for none.

    A spelling may include the unit: `train_seconds` names the column and its unit at once.
    """
    wanted = sorted(words)
    return next(
        (place for place, spellings in enumerate(_sorted(column)) if wanted in spellings), None
    )


@lru_cache(maxsize=256)
def _sorted(column: Column) -> tuple[tuple[list[str], ...], ...]:
    return tuple(
        tuple(sorted(one.split("_")) for one in {name, name.removesuffix("_seconds")})
        for name in column.spellings
    )


def data_set_of(text: str) -> str | None:
    """Return the short name of a known data set, `sst2` for `SST-2 (Acc)`; None for none."""
    words = re.findall(r"[^\W_]+", re.sub(r"\([^()]*\)", "", text).casefold())
    name = "".join(word for word in words if word not in QUALITY)
    return name if name in DATA_SETS else None


def _of_data_set(name: str, words: Sequence[str]) -> Column:
    """Return the column of a data set's score, with its metric where that is known."""
    metric = next((METRICS[word] for word in words if word in METRICS), METRIC_OF.get(name))
    return Column(f"{name} {metric}" if metric else name, "score", (name,), row_field="scores")


def _percent(words: Sequence[str]) -> float | None:
    return next((UNITS["share"][word] for word in words if word in UNITS["share"]), None)
