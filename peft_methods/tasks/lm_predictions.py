"""What is kept of a language model's test rows: losses, and generated texts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.data.token_rows import TokenRows

SAMPLES = 5  # rows whose prompts are kept, to be shown


@dataclass(frozen=True)
class Generated:
    """Generated texts of all rows, and what they are compared with.

    `texts` has one text a row, `references` the right answers of each row, `prompts` those of the
    first rows. `lengths` counts the generated tokens without the end-of-sequence token, `stopped`
    says whether there was one. `pattern` finds the answer in a text, "" for the whole text.
    `fallback` says why greedy texts were not decoded in slots, "" if they were.
    """

    texts: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    prompts: tuple[str, ...]
    lengths: NDArray[np.int64]
    stopped: NDArray[np.bool_]
    pattern: str = ""
    fallback: str = ""


@dataclass(frozen=True)
class LanguagePredictions:
    """The summed loss of each row in nats, its number of learnt tokens, and generated texts.

    `labels` identify the rows by their tokens.
    """

    totals: NDArray[np.float64]
    counts: NDArray[np.int64]
    labels: NDArray[np.int64]
    generated: Generated | None = field(default=None)

    @property
    def is_finite(self) -> bool:
        """Whether every loss is finite."""
        return bool(np.isfinite(self.totals).all())

    @property
    def loss(self) -> float:
        """The mean loss of a token; 0 without any."""
        return float(self.totals.sum() / max(1, int(self.counts.sum())))

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Return the arrays to store. Texts are UTF-8 bytes with the places of their ends."""
        found = {"totals": self.totals, "counts": self.counts, "labels": self.labels}
        if self.generated is None:
            return found
        made = self.generated
        several = np.asarray([len(one) for one in made.references], dtype=np.int64)
        texts = {
            "generated": made.texts,
            "references": [text for found_ in made.references for text in found_],
            "prompts": made.prompts,
            "pattern": [made.pattern],
            "fallback": [made.fallback],
        }
        return {
            **found,
            **{name: array for key, one in texts.items() for name, array in _packed(key, one)},
            "references_of_row": several,
            "generated_tokens": made.lengths,
            "stopped": made.stopped,
        }

    @classmethod
    def restore(cls, read: Callable[[str], NDArray[Any]]) -> LanguagePredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        totals, counts, labels = read("totals"), read("counts"), read("labels")
        if not len(totals) == len(counts) == len(labels):
            raise ValueError("losses, counts and labels differ in length")
        try:
            lengths = read("generated_tokens")
        except KeyError:  # nothing was generated
            return cls(totals, counts, labels)
        several, flat = read("references_of_row"), _unpacked("references", read)
        borders = np.cumsum([0, *several])
        made = Generated(
            _unpacked("generated", read),
            tuple(flat[a:b] for a, b in itertools.pairwise(borders)),
            _unpacked("prompts", read),
            lengths,
            read("stopped"),
            _unpacked("pattern", read)[0],
            _fallback(read),
        )
        if not len(made.texts) == len(made.references) == len(lengths) == len(totals):
            raise ValueError("generated texts and losses differ in length")
        return cls(totals, counts, labels, made)


def _fallback(read: Callable[[str], NDArray[Any]]) -> str:
    try:
        return _unpacked("fallback", read)[0]
    except KeyError:  # of an earlier version, which generated all texts in batches
        return ""


def row_digests(rows: TokenRows) -> NDArray[np.int64]:
    """Return a number for each row that depends on all its tokens and labels."""
    import xxhash

    found = [
        xxhash.xxh3_64_intdigest(ids.tobytes() + labels.tobytes()) >> 1
        for ids, labels in zip(rows.tokens["input_ids"], rows.tokens["labels"], strict=True)
    ]
    return np.asarray(found, dtype=np.int64)


def _packed(name: str, texts: Sequence[str]) -> list[tuple[str, NDArray[Any]]]:
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum([len(part) for part in parts]).astype(np.int64)
    return [(name, np.frombuffer(b"".join(parts), np.uint8)), (f"{name}_ends", ends)]


def _unpacked(name: str, read: Callable[[str], NDArray[Any]]) -> tuple[str, ...]:
    whole, ends = read(name).tobytes(), read(f"{name}_ends").tolist()
    if (ends[-1] if ends else 0) != len(whole):
        raise ValueError(f"{name}: texts and their ends do not fit")
    starts = [0, *ends[:-1]] if ends else []
    return tuple(
        whole[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)
    )
