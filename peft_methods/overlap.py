"""Texts that lie within other texts: phrases cut from sentences make splits overlap though no text stands in two of them.

A text lies within another when its words, in lower case and without punctuation, are a contiguous part of the other's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Words = tuple[str, ...]

LEAST_WORDS = 2
LEAST_PART = 0.5
PREFIX = (
    4  # words that an index entry is found by; longer ones cost memory, shorter ones comparisons
)


@dataclass(frozen=True)
class Overlap:
    """How much of a split is part of train: shares of its texts.

    `within`: the text lies within a train text. `around`: a train text lies within it and makes up at least LEAST_PART
    of its words; around less of it, most of what is tested is new. Texts below LEAST_WORDS never count: one word stands
    in other texts by the nature of language. (Of GLUE's 872 SST-2 development sentences, which share no sentence with
    train, 83 % hold a training phrase of one word; 19 % one of two or more; next to none one of half their length.)
    """

    within: float
    around: float


def words_of(text: str) -> Words:
    """The text's words in lower case, without punctuation."""
    return tuple(re.findall(r"\w+", text.casefold()))


def found_within(needles: Sequence[Words], haystacks: Sequence[Words]) -> Iterator[tuple[int, int]]:
    """Every (needle, haystack) pair where the one's words are a contiguous part of the other's, by position in the lists.

    Needles are looked up by their first words at each place of each haystack, so the work grows with the words there
    are and not with the pairs: two seconds for the 67,349 phrases of SST-2 against themselves. Empty needles are nowhere.
    """
    by_start: defaultdict[Words, list[int]] = defaultdict(list)
    for number, needle in enumerate(needles):
        if needle:
            by_start[needle[:PREFIX]].append(number)
    lengths = sorted({len(start) for start in by_start})
    for where, hay in enumerate(haystacks):
        for place in range(len(hay)):
            for length in lengths:
                for number in (
                    by_start.get(hay[place : place + length], ())
                    if place + length <= len(hay)
                    else ()
                ):
                    needle = needles[number]
                    if len(needle) == length or hay[place : place + len(needle)] == needle:
                        yield number, where


def measure(texts: Sequence[str], train: Sequence[str]) -> Overlap:
    """How much of `texts` is part of `train`."""
    judged, known = [words_of(text) for text in texts], [words_of(text) for text in train]
    long_enough = [words if len(words) >= LEAST_WORDS else () for words in judged]
    pieces = [words if len(words) >= LEAST_WORDS else () for words in known]
    within = {row for row, _ in found_within(long_enough, known)}
    around = {
        row
        for piece, row in found_within(pieces, judged)
        if len(pieces[piece]) >= LEAST_PART * len(judged[row])
    }
    return Overlap(len(within) / max(1, len(texts)), len(around) / max(1, len(texts)))


def whole_sentences(texts: Sequence[str]) -> list[int]:
    """The rows whose text lies within no other; of several with the same words, the first."""
    words = [words_of(text) for text in texts]
    parts = {
        row
        for row, other in found_within(words, words)
        if row != other and (words[row] != words[other] or row > other)
    }
    return [row for row in range(len(texts)) if words[row] and row not in parts]


def rows_within(texts: Sequence[str], sentences: Sequence[str]) -> set[int]:
    """The rows whose text lies within one of the sentences."""
    return {
        row
        for row, _ in found_within(
            [words_of(text) for text in texts], [words_of(text) for text in sentences]
        )
    }
