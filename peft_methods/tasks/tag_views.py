"""Views of a tagger's results: scores by type of entity, and the matrix of confused types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_methods.tasks.metrics import COUNT
from peft_methods.tasks.part_views import SCORES, Counts, Parts, extremes, most_frequent_error
from peft_methods.tasks.views import MatrixView, TableView

NO_ENTITY = "no entity"
PER_TYPE, TYPE_CONFUSION = "per_type", "type_confusion"  # details of a quality


def tag_views(qualities: Sequence[Mapping[str, Any]]) -> tuple[TableView, MatrixView] | None:
    """Return both views over the runs with the types of the first; None without any."""
    if (parts := Parts.of(qualities, PER_TYPE)) is None:
        return None
    counts = parts.counts(TYPE_CONFUSION)
    table = parts.table(
        name="types",
        title="Scores by type of entity",
        about="Type",
        columns=(*SCORES, ("support", "Test entities", COUNT)),
    )
    matrix = MatrixView(
        name="types",
        title="true against predicted types, words of the test set",
        shows="which types of entities {method} confuses, word by word",
        description=_described(counts, parts.names),
        rows="true type",
        columns="predicted type",
        examples="test words",
        labels=(*parts.names, NO_ENTITY),
        counts=counts,
        runs=table.runs,
    )
    return table, matrix


def _described(counts: Counts, types: Sequence[str]) -> str:
    """Name the types whose words are found most and least often, and the most frequent error."""
    if (shares := extremes(counts, types)) is None:
        return "No word of the test set is part of an entity."
    best, worst = shares
    error = most_frequent_error(counts, (*types, NO_ENTITY), " words")
    return (
        f"Words of {best.label} get their type most often, {best.percent}; those of {worst.label} "
        f"least often, {worst.percent}. {error or 'Every word got its type.'}"
    )
