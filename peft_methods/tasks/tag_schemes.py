"""Tagging schemes: BIO, IOB1, IO, BIOES and BILOU are recognised and converted to BIO.

In BIO (IOB2) every entity begins with B- and continues with I-. In IOB1, B- only separates an
entity from one of the same type before it (Ramshaw & Marcus 1995). IO has no B- at all. BIOES and
BILOU also mark the last word of an entity (E-, L-) and entities of one word (S-, U-) (Ratinov &
Roth 2009).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from peft_methods.utils.errors import DataError
from peft_methods.utils.words import counted

OUTSIDE = "O"
PREFIXED = re.compile(r"([BIESLU])-(.+)")
PREFIX_FIRST = re.compile(r"([BIESLUbieslu])[-_.:/|](.+)")
PREFIX_LAST = re.compile(r"(.+)[-_.:/|]([BIESLU])")
PREFIXES = "BIESLU"
BEGINS, ENDS = "BSU", "ESLU"  # prefixes of the first and of the last word of an entity
ONLY_TYPE = "entity"  # the type of tags that are a prefix alone: B, I, O
MOST_REPAIRED = 0.1  # of a split's entities; with more, the tags are of no scheme
ALLOWED = "BIO, IOB1, IO, BIOES or BILOU, such as 'B-PER', 'I-PER' and 'O'"
ABOUT = {
    "IOB1": "IOB1 (B- only between entities of the same type)",
    "IO": "IO (without B-, so that neighbouring entities of the same type are one)",
    "IO without prefixes": "types without a prefix; neighbouring words of the same type are one "
    "entity",
    "BIOES": "BIOES (with E- and S-)",
    "BILOU": "BILOU (with L- and U-)",
}

Sentences = list[list[str]]


@dataclass(frozen=True)
class BioTags:
    """The tags of each split in BIO, with the name of the scheme they were written in.

    `entities` counts the entities of each split, and `repaired` those that began with another
    prefix than the scheme's.
    """

    tags: dict[str, Sentences]
    scheme: str
    entities: dict[str, int]
    repaired: dict[str, int]

    def notes(self) -> tuple[str, ...]:
        """Return one sentence for the conversion, if there was one, and one for repairs."""
        notes = []
        if self.scheme in ABOUT:
            notes.append(f"The tags are {ABOUT[self.scheme]}; they were converted to BIO.")
        repaired = [
            f"{count:,} of {self.entities[split]:,} in {split}"
            for split, count in self.repaired.items()
            if count
        ]
        if repaired:
            notes.append(
                f"Entities that begin with I- (or E-, L-) in place of B- were read as if they "
                f"began with B-: {', '.join(repaired)}."
            )
        return tuple(notes)


def to_bio(tags: Mapping[str, Sentences], source: str) -> BioTags:
    """Recognise the scheme from the tags of all splits, and convert them to BIO.

    An entity that begins with I-, E- or L- is repaired: its first tag becomes B-. Raises
    `DataError` for tags of no scheme, and if a split has more such entities than MOST_REPAIRED.
    """
    counts = Counter(tag for sentences in tags.values() for one in sentences for tag in one)
    parts, scheme = _parts(counts, source)
    converted: dict[str, Sentences] = {}
    found: dict[str, _Found] = {}
    for split, sentences in tags.items():
        found[split] = _Found()
        converted[split] = [_convert(one, parts, found[split]) for one in sentences]
    if scheme == "BIO" and _is_iob1(found.values()):
        scheme = "IOB1"
    is_free = scheme in {"IOB1", "IO", "IO without prefixes"}  # I- may begin an entity
    repaired = {split: 0 if is_free else one.irregular for split, one in found.items()}
    for split, count in repaired.items():
        if count > MOST_REPAIRED * found[split].entities:
            raise DataError(
                f"{source}: {count:,} of {counted(found[split].entities, 'entity', 'entities')} in "
                f"{split} begin with I- (or E-, L-), though the tags look like {scheme}; more than "
                f"{MOST_REPAIRED:.0%} are not repaired. Write one scheme in all splits: {ALLOWED}.",
                setting="data.label",
            )
    entities = {split: one.entities for split, one in found.items()}
    return BioTags(converted, scheme, entities, repaired)


@dataclass
class _Found:
    """Counts of a split: its entities, those that began irregularly, and two kinds of B-."""

    entities: int = 0
    irregular: int = 0
    separating: int = 0  # B- right after an entity of the same type
    other_begins: int = 0


def _is_iob1(splits: Iterable[_Found]) -> bool:
    """Whether I- begins entities and B- is only used where IOB1 needs it."""
    found = list(splits)
    return any(one.irregular for one in found) and not any(one.other_begins for one in found)


def _convert(tags: list[str], parts: Mapping[str, tuple[str, str]], found: _Found) -> list[str]:
    """Return the tags of a sentence in BIO. Counts what it finds."""
    result = []
    before, kind_before = OUTSIDE, ""
    for tag in tags:
        prefix, kind = parts[tag]
        if prefix == OUTSIDE:
            result.append(OUTSIDE)
        else:
            goes_on = before != OUTSIDE and before not in ENDS and kind == kind_before
            begins = prefix in BEGINS or not goes_on
            found.entities += begins
            found.irregular += begins and prefix not in BEGINS
            found.separating += prefix == "B" and goes_on
            found.other_begins += prefix in BEGINS and not goes_on
            result.append(f"{'B' if begins else 'I'}-{kind}")
        before, kind_before = prefix, kind
    return result


def _parts(counts: Counter[str], source: str) -> tuple[dict[str, tuple[str, str]], str]:
    """Return prefix and type of each tag, and the name of the scheme. Raises `DataError`."""
    marked = {tag: match for tag in counts if (match := PREFIXED.fullmatch(tag))}
    bare = [tag for tag in counts if tag != OUTSIDE and tag not in marked]
    _check_tags(counts, bare, bool(marked), source)
    parts = {tag: (match[1], match[2]) for tag, match in marked.items()}
    outside = {OUTSIDE: (OUTSIDE, "")}
    if bare and set(bare) <= set(PREFIXES):
        parts, bare = {tag: (tag, ONLY_TYPE) for tag in bare}, []
    if bare:
        return {tag: ("I", tag) for tag in bare} | outside, "IO without prefixes"
    prefixes = {prefix for prefix, _ in parts.values()}
    if prefixes & set("ES") and prefixes & set("LU"):
        raise DataError(
            f"{source}: the tags have the prefixes {', '.join(sorted(prefixes))}, a mixture of "
            f"BIOES and BILOU. Write one scheme in all splits: {ALLOWED}.",
            setting="data.label",
        )
    scheme = "BIOES" if prefixes & set("ES") else "BILOU" if prefixes & set("LU") else "BIO"
    return parts | outside, "IO" if prefixes == {"I"} else scheme


def _check_tags(counts: Counter[str], bare: list[str], has_prefixes: bool, source: str) -> None:
    """Raise `DataError` for tags that are of no scheme."""
    if set(counts) <= {OUTSIDE}:
        raise DataError(
            f"{source}: all tags are {OUTSIDE!r}, so there is no entity to learn. Is data.label "
            f"the right column?",
            setting="data.label",
        )
    if untyped := [tag for tag in bare if tag[-1:] == "-" and tag[:-1] in PREFIXES]:
        raise DataError(
            f"{source}: the tag {untyped[0]!r} has no type after its prefix. Use tags in "
            f"{ALLOWED}.",
            setting="data.label",
        )
    if bare and has_prefixes:
        raise DataError(
            f"{source}: the tag {bare[0]!r} ({counted(counts[bare[0]], 'word')}) has no prefix, "
            f"but others have. Use tags in {ALLOWED}.",
            setting="data.label",
        )
    _check_form(bare, has_prefixes, source)
    if bare and counts.most_common(1)[0][0] != OUTSIDE and not set(bare) <= set(PREFIXES):
        raise DataError(
            f"{source}: tags such as {bare[0]!r} are classes of words, such as parts of speech, "
            f"and no entities ({OUTSIDE!r} is not the most frequent tag). Use tags in {ALLOWED}.",
            setting="data.label",
        )


def _check_form(bare: list[str], has_prefixes: bool, source: str) -> None:
    """Raise `DataError` for prefixes in small letters, after the type, or without a hyphen.

    As types of IO they would be read as twice as many types, and every entity cut in two.
    """
    rewritten = {tag: _rewritten(tag) for tag in bare}
    typed = [tag for tag, right in rewritten.items() if right and right != OUTSIDE]
    prefixes = {(rewritten[tag] or "")[0] for tag in typed}
    if has_prefixes or not all(rewritten.values()) or not prefixes & set(BEGINS):
        return
    raise DataError(
        f"{source}: the tag {typed[0]!r} has its prefix in another form. Write it as "
        f"{rewritten[typed[0]]!r}: use tags in {ALLOWED}.",
        setting="data.label",
    )


def _rewritten(tag: str) -> str:
    """Return a tag with its prefix as it should be: 'B_PER', 'b-per' and 'PER-B' -> 'B-PER'.

    Empty for a tag without a prefix in any form.
    """
    if tag.upper() == OUTSIDE:
        return OUTSIDE
    if found := PREFIX_FIRST.fullmatch(tag):
        return f"{found[1].upper()}-{found[2]}"
    if found := PREFIX_LAST.fullmatch(tag):
        return f"{found[2].upper()}-{found[1]}"
    return ""
