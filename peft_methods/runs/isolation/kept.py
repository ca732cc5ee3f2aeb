"""What a process keeps for its next run: the rows, as texts and as tokens, with their digests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import xxhash

from peft_methods.data import synthetic, tokenize
from peft_methods.data.facts import SPLITS, TextData, TokenData, fingerprint
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class _Rows:
    texts: TextData
    digest: str
    tokenizer: str = ""  # the digest of the tokenizer that made the tokens
    tokens: TokenData | None = None
    tokens_digest: str = ""


class Kept:
    """Read and tokenize the rows of runs, and keep those of the last run for the next one.

    `gpu_levels` are the bytes that were in use on each GPU, by UUID, before this process used CUDA.
    """

    def __init__(self) -> None:
        self.gpu_levels: dict[str, int] = {}
        self._key: object = None
        self._kept: _Rows | None = None

    def texts(self, run: RunSpec) -> TextData:
        """Return the rows of a run. Raises `DataError`."""
        if self._kept is None or self._key != _rows_of(run):
            task = TASKS[run.recipe.task]
            texts = synthetic.load(run.recipe, task, run.row_seeds, run.seed)
            self._key, self._kept = _rows_of(run), _Rows(texts, fingerprint(texts.splits))
        return self._kept.texts

    def tokens(self, run: RunSpec, tokenizer: PreTrainedTokenizerBase, sha256: str) -> TokenData:
        """Return the tokens of the rows that `texts` returned last. Raises `DataError`.

        `sha256` is the digest of the tokenizer.
        """
        kept = self._kept
        assert kept is not None
        if kept.tokens is None or kept.tokenizer != sha256:
            task = TASKS[run.recipe.task]
            kept.tokens = tokenize.tokenize(kept.texts, tokenizer, run.recipe.data, task)
            kept.tokenizer, kept.tokens_digest = sha256, _digest(kept.tokens)
        return kept.tokens

    def left_behind(self) -> list[str]:
        """Say so if a run has changed the rows; nothing is kept then."""
        kept = self._kept
        if kept is None:
            return []
        same = fingerprint(kept.texts.splits) == kept.digest and (
            kept.tokens is None or _digest(kept.tokens) == kept.tokens_digest
        )
        if same:
            return []
        self._kept = None
        return ["the rows that it read have been changed"]


def without_seed(run: RunSpec) -> RunSpec:
    """Return a spec that equals those of the same run with other seeds."""
    return replace(run, seed=0, prerequisites=())


def _rows_of(run: RunSpec) -> object:
    """Return everything that decides which rows a run has."""
    subset = run.seed if run.recipe.data.train_subset is not None else None
    return run.recipe.model, run.recipe.data, run.recipe.task, run.row_seeds, subset


def _digest(tokens: TokenData) -> str:
    found = xxhash.xxh3_128()
    for split in SPLITS:
        rows = getattr(tokens, split)
        for name, column in rows.tokens.items():
            found.update(name.encode())
            for row in column:
                found.update(row.data)
        if rows.labels is not None:
            found.update(rows.labels.tobytes())
    return found.hexdigest()
