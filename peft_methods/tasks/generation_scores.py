"""Scores of generated texts: exact match, ROUGE-L, chrF and BLEU, one for each example.

- Exact match: 1 if the answer in a text is that in a reference. Without a pattern the answers are
  the whole texts. Numbers are compared by value: "1,000", "1000" and "1000.0" are the same.
- ROUGE-L (Lin 2004): the F-measure of the longest common subsequence of words, by `rouge-score`,
  the best over a row's references. It reads ASCII letters and digits alone.
- chrF (Popović 2015): the F2-score of character n-grams up to 6, by sacrebleu, of each sentence.
- BLEU (Papineni et al. 2002): of the corpus, by sacrebleu with its defaults. A row's score is its
  influence on the corpus' value: that value plus how much the mean of those without one row lies
  above the one without this row, times the number of rows less one (the jackknife).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from peft_methods.tasks.lm_predictions import Generated

Scores = NDArray[np.float64]
GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
NUMBER = re.compile(r"(?P<sign>[+-]?)(?=\.?\d)(?P<whole>\d*)(\.(?P<part>\d*))?", re.ASCII)


def answer_in(text: str, pattern: str) -> str | None:
    """Return the answer in a text: the last match of the pattern's group; None without any."""
    if not pattern:
        return text.strip()
    found = [match.group(1) for match in re.finditer(pattern, text)]
    return found[-1].strip() if found and found[-1] is not None else None


def normalised(answer: str) -> str:
    """Return an answer in one spelling: numbers by value, without a currency or per cent sign."""
    bare = answer.strip().strip("$€£%").rstrip(".").strip()
    plain = bare.replace(",", "") if GROUPED.fullmatch(bare) else bare
    found = NUMBER.fullmatch(plain)
    if found is None:
        return " ".join(answer.split())
    whole, part = found["whole"].lstrip("0") or "0", (found["part"] or "").rstrip("0")
    value = f"{whole}.{part}" if part else whole
    return f"-{value}" if found["sign"] == "-" and value != "0" else value


def exact_match(made: Generated) -> Scores:
    """Return 1 for each right answer, else 0. A text without an answer is wrong."""
    return np.asarray(
        [
            _is_right(answer_in(text, made.pattern), references, made.pattern)
            for text, references in zip(made.texts, made.references, strict=True)
        ],
        dtype=np.float64,
    )


def _is_right(answer: str | None, references: Sequence[str], pattern: str) -> bool:
    """Whether an answer is that of a reference. A reference without the pattern is the answer."""
    if answer is None:
        return False
    right = [answer_in(one, pattern) for one in references]
    known = [
        one.strip() if found is None else found
        for one, found in zip(references, right, strict=True)
    ]
    return normalised(answer) in {normalised(one) for one in known}


def rouge_l(made: Generated) -> Scores:
    """Return the F-measure of ROUGE-L of each row, with its best reference."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return np.asarray(
        [
            max(scorer.score(one.strip(), text.strip())["rougeL"].fmeasure for one in references)
            for text, references in zip(made.texts, made.references, strict=True)
        ],
        dtype=np.float64,
    )


def chrf(made: Generated) -> Scores:
    """Return chrF of each row, from 0 to 1."""
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF()
    return np.asarray(
        [
            scorer.sentence_score(text.strip(), [one.strip() for one in references]).score / 100
            for text, references in zip(made.texts, made.references, strict=True)
        ],
        dtype=np.float64,
    )


def bleu(made: Generated) -> Scores:
    """Return each row's influence on the BLEU of all rows; their mean is that BLEU, from 0 to 1."""
    counts = _bleu_counts(made)
    total = counts.sum(axis=0)
    whole = _bleu_of(total)
    if len(counts) < 2:
        return np.full(len(counts), whole)
    without = np.asarray([_bleu_of(total - row) for row in counts])
    return whole + (len(counts) - 1) * (without.mean() - without)


def _bleu_counts(made: Generated) -> NDArray[np.int64]:
    """Return each row's lengths and n-gram counts (rows, 10). BLEU is a function of their sum."""
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)
    found = [
        scorer.sentence_score(text.strip(), [one.strip() for one in references])
        for text, references in zip(made.texts, made.references, strict=True)
    ]
    rows = [[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in found]
    return np.asarray(rows, dtype=np.int64).reshape(len(found), 10)


def _bleu_of(counts: NDArray[np.int64]) -> float:
    from sacrebleu.metrics.bleu import BLEU

    lengths, matches, totals = counts[:2], counts[2:6], counts[6:]
    found = BLEU.compute_bleu(
        matches.tolist(), totals.tolist(), int(lengths[0]), int(lengths[1]), smooth_method="exp"
    )
    return float(found.score) / 100


SCORES: Mapping[str, Callable[[Generated], Scores]] = {
    "exact_match": exact_match,
    "rouge_l": rouge_l,
    "chrf": chrf,
    "bleu": bleu,
}


def generation_facts(made: Generated) -> dict[str, float | str]:
    """Return the mean number of generated tokens, the share that stopped, and that of answers.

    `fallback` says why they were not decoded in slots, where they were not.
    """
    answers = [answer_in(text, made.pattern) is not None for text in made.texts]
    return {
        "mean_tokens": float(made.lengths.mean()) if len(made.lengths) else 0.0,
        "stopped": float(made.stopped.mean()) if len(made.stopped) else 0.0,
        "answered": float(np.mean(answers)) if answers else 0.0,
        "empty": float(np.mean([not text.strip() for text in made.texts])) if answers else 0.0,
        "rows": float(len(made.texts)),
        **({"fallback": made.fallback} if made.fallback else {}),
    }
