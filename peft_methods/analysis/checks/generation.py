"""V6xx: mistakes in generated texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import rule
from peft_methods.runs.record import Record

LEAST = 0.5  # share of the texts


def _facts(record: Record) -> Mapping[str, Any]:
    """Return the facts about a run's generated texts; empty without any."""
    found: Mapping[str, Any] = (record.quality or {}).get("generation") or {}
    return found


@rule("V601", "warning", "run")
def never_stops(record: Record) -> Iterator[tuple[str, str]]:
    """Most generated texts did not end by themselves: the model did not learn to stop.

    Its scores then depend on data.max_new_tokens, and in use it writes on and on.
    """
    facts, data = _facts(record), record.spec.recipe.data
    if facts and facts["stopped"] < LEAST:
        yield (
            f"{facts['stopped']:.0%} of {facts['rows']:,.0f} texts ended with an end-of-sequence "
            f"token within {data.max_new_tokens} tokens",
            "if right answers are longer, raise data.max_new_tokens; if completions are cut off, "
            "raise data.max_length; otherwise train longer or raise the learning rate",
        )


@rule("V602", "warning", "run")
def no_answers(record: Record) -> Iterator[tuple[str, str]]:
    """Most generated texts have no answer that data.answer_pattern finds."""
    facts, pattern = _facts(record), record.spec.recipe.data.answer_pattern
    if facts and pattern and facts["answered"] < LEAST:
        yield (
            f"{facts['answered']:.0%} of {facts['rows']:,.0f} texts match {pattern!r}",
            "look at the samples in the report: the pattern may not be how this data writes "
            "answers, or data.max_new_tokens cuts them off",
        )


@rule("V603", "warning", "run")
def writes_nothing(record: Record) -> Iterator[tuple[str, str]]:
    """Most generated texts are empty: the model ends at once."""
    facts = _facts(record)
    if facts and facts["empty"] >= LEAST:
        yield (
            f"{facts['empty']:.0%} of {facts['rows']:,.0f} texts are empty",
            "lower the learning rate, or check that completions are not cut off by data.max_length",
        )


@rule("V604", "warning", "row", needs=("quality score trivial has_learnt",))
def writes_no_better(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The loss fell below the untrained model's, but generated texts score no better than its.

    The model learnt, only not enough for the metric that methods are compared by. Where the loss
    did not fall either, V301 is an error.
    """
    metric, score, trivial = row.quality, row.score, row.trivial
    if row.only_loss_improved and metric and score is not None and trivial is not None:
        yield (
            f"{metric.in_text} {score:.3f}, before training {trivial:.3f}",
            "compare the methods by their loss, train for longer, or take a larger model",
        )
