"""Tagging schemes: what is recognised, converted, repaired and refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities

from peft_methods.tasks.tag_schemes import to_bio
from peft_methods.utils.errors import DataError


def converted(*sentences: str) -> tuple[str, list[str]]:
    found = to_bio({"train": [one.split() for one in sentences]}, "DATA")
    return found.scheme, [" ".join(one) for one in found.tags["train"]]


@pytest.mark.parametrize(
    ("scheme", "tags", "bio"),
    [
        ("BIO", "O B-PER I-PER B-PER O B-LOC", "O B-PER I-PER B-PER O B-LOC"),
        ("IOB1", "O I-PER I-PER B-PER O I-LOC", "O B-PER I-PER B-PER O B-LOC"),
        ("IO", "O I-PER I-PER I-LOC O", "O B-PER I-PER B-LOC O"),
        ("IO without prefixes", "O PER PER LOC O O", "O B-PER I-PER B-LOC O O"),
        ("BIOES", "O B-PER E-PER S-PER O S-LOC", "O B-PER I-PER B-PER O B-LOC"),
        ("BILOU", "O B-PER I-PER L-PER U-LOC", "O B-PER I-PER I-PER B-LOC"),
        ("BIO", "O B I B O", "O B-entity I-entity B-entity O"),
        ("BIO", "O B-a-b I-a-b O", "O B-a-b I-a-b O"),
    ],
)
def test_schemes_are_recognised_and_converted(scheme: str, tags: str, bio: str) -> None:
    assert converted(tags) == (scheme, [bio])


def test_conversions_and_repairs_are_said() -> None:
    iob1 = to_bio({"train": [["I-PER", "B-PER"]]}, "DATA")
    assert iob1.notes() == (
        "The tags are IOB1 (B- only between entities of the same type); they were converted to "
        "BIO.",
    )
    assert to_bio({"train": [["B-PER", "I-PER"]]}, "DATA").notes() == ()
    bio = to_bio({"train": [["B-PER", "O"]] * 19 + [["O", "I-PER"]], "test": [["B-PER"]]}, "DATA")
    assert bio.tags["train"][-1] == ["O", "B-PER"]
    assert bio.notes() == (
        "Entities that begin with I- (or E-, L-) in place of B- were read as if they began with "
        "B-: 1 of 20 in train.",
    )


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("O B- O", r"the tag 'B-' has no type after its prefix\. Use tags in BIO, IOB1"),
        ("O B-PER LOC LOC", r"the tag 'LOC' \(2 words\) has no prefix, but others have"),
        ("NOUN VERB NOUN", r"tags such as 'NOUN' are classes of words, such as parts of speech"),
        ("O B_PER I_PER", "the tag 'B_PER' has its prefix in another form. Write it as 'B-PER'"),
        ("o b-per i-per o", "Write it as 'B-per': use tags in BIO, IOB1"),
        ("O PER-B PER-I O", "Write it as 'B-PER'"),
        ("O O O", "all tags are 'O', so there is no entity to learn"),
        ("S-PER O U-PER", "have the prefixes S, U, a mixture of BIOES and BILOU"),
        ("O B-PER O I-PER I-LOC", r"2 of 3 entities in train begin with I- .* look like BIO; more"),
    ],
)
def test_tags_of_no_scheme_are_refused(tags: str, message: str) -> None:
    with pytest.raises(DataError, match=f"^DATA: .*{message}") as refused:
        converted(tags)
    assert refused.value.setting == "data.label"
    assert "\n" not in str(refused.value)


def test_splits_in_different_schemes_are_refused() -> None:
    splits = {"train": [["B-PER", "I-PER", "O"]] * 9, "test": [["I-PER", "I-PER", "O"]]}
    with pytest.raises(DataError, match=r"DATA: 1 of 1 entity in test begin with I-"):
        to_bio(splits, "DATA")


SPANS = st.lists(
    st.tuples(st.sampled_from(["O", "PER", "LOC"]), st.integers(1, 4)), min_size=1, max_size=6
)


def tagged(spans: list[tuple[str, int]], scheme: str) -> list[str]:
    """Write spans in a scheme. Neighbouring spans of the same type are two entities."""
    tags: list[str] = []
    before = "O"
    for kind, length in spans:
        if kind == "O":
            tags += ["O"] * length
        elif scheme in {"BIOES", "BILOU"}:
            single, last = ("S", "E") if scheme == "BIOES" else ("U", "L")
            inner = ["B", *["I"] * (length - 2), last] if length > 1 else [single]
            tags += [f"{prefix}-{kind}" for prefix in inner]
        else:
            first = "B" if scheme == "BIO" or before == kind else "I"
            tags += [f"{first}-{kind}", *[f"I-{kind}"] * (length - 1)]
        before = kind
    return tags


@given(st.lists(SPANS, min_size=1, max_size=4), st.sampled_from(["BIO", "IOB1", "BIOES", "BILOU"]))
def test_conversion_keeps_every_entity(spans: list[list[tuple[str, int]]], scheme: str) -> None:
    sentences = [tagged(one, scheme) for one in spans]
    if all(tag == "O" for one in sentences for tag in one):
        return
    readers = {"BIO": IOB2, "IOB1": IOB1, "BIOES": IOBES, "BILOU": BILOU}
    found = to_bio({"train": sentences}, "DATA").tags["train"]
    expected = Entities(sentences, scheme=readers[scheme]).entities
    bio = Entities(found, scheme=IOB2).entities
    assert [[e.to_tuple()[1:] for e in one] for one in bio] == [
        [e.to_tuple()[1:] for e in one] for one in expected
    ]


@given(
    st.lists(
        st.lists(
            st.text("OBIESLUPX-_ ", min_size=1, max_size=4).map(lambda tag: tag.strip() or "O"),
            max_size=5,
        ),
        max_size=5,
    )
)
def test_any_tags_are_converted_to_sound_bio_or_refused(sentences: list[list[str]]) -> None:
    try:
        found = to_bio({"train": sentences}, "DATA")
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert [len(one) for one in found.tags["train"]] == [len(one) for one in sentences]
    begins = Counter(tag[0] for one in found.tags["train"] for tag in one)
    assert begins["B"] == found.entities["train"]
    for one in found.tags["train"]:
        for before, tag in zip(["O", *one], one, strict=False):
            assert tag == "O" or tag[:2] in ("B-", "I-")
            assert tag[0] != "I" or before[2:] == tag[2:]
