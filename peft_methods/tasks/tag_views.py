"""Views of a tagger's results: scores by type of entity, and the matrix of confused types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from peft_methods.tasks.metrics import COUNT, SHARE
from peft_methods.tasks.views import MatrixView, TableView

COLUMNS = (
    ("precision", "Precision", SHARE),
    ("recall", "Recall", SHARE),
    ("f1", "F1", SHARE),
    ("support", "Test entities", COUNT),
)
NO_ENTITY = "no entity"
PER_TYPE, TYPE_CONFUSION = "per_type", "type_confusion"  # details of a quality


def tag_views(qualities: Sequence[Mapping[str, Any]]) -> tuple[TableView, MatrixView] | None:
    """Return both views over the runs with the types of the first; None without any."""
    known = [one for one in qualities if one.get(PER_TYPE)]
    if not known:
        return None
    types = tuple(known[0][PER_TYPE])
    same = [one for one in known if tuple(one[PER_TYPE]) == types]
    return _table(same, types), _matrix(same, types)


def _table(same: Sequence[Mapping[str, Any]], types: tuple[str, ...]) -> TableView:
    return TableView(
        name="types",
        title="Scores by type of entity",
        about="Type",
        columns=tuple((title, unit) for _, title, unit in COLUMNS),
        rows=types,
        values=tuple(
            tuple(fmean(one[PER_TYPE][kind][name] for one in same) for name, _, _ in COLUMNS)
            for kind in types
        ),
        runs=len(same),
    )


def _matrix(same: Sequence[Mapping[str, Any]], types: tuple[str, ...]) -> MatrixView:
    counts = tuple(
        tuple(int(sum(column)) for column in zip(*lines, strict=True))
        for lines in zip(*(one[TYPE_CONFUSION] for one in same), strict=True)
    )
    labels = (*types, NO_ENTITY)
    return MatrixView(
        name="types",
        title="true against predicted types, words of the test set",
        shows="which types of entities {method} confuses, word by word",
        description=_described(counts, labels),
        rows="true type",
        columns="predicted type",
        examples="test words",
        labels=labels,
        counts=counts,
        runs=len(same),
    )


def _described(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Name the types whose words are found most and least often, and the most frequent error."""
    types = range(len(labels) - 1)
    share = {i: counts[i][i] / sum(counts[i]) for i in types if sum(counts[i])}
    if not share:
        return "No word of the test set is part of an entity."
    best, worst = max(share, key=share.__getitem__), min(share, key=share.__getitem__)
    text = (
        f"Words of {labels[best]} get their type most often, {100 * share[best]:.1f} %; those of "
        f"{labels[worst]} least often, {100 * share[worst]:.1f} %."
    )
    size = range(len(labels))
    wrong = {(i, j): counts[i][j] for i in size for j in size if i != j}
    true, predicted = max(wrong, key=wrong.__getitem__)
    if not wrong[true, predicted]:
        return f"{text} Every word got its type."
    return (
        f"{text} Most frequent error: {labels[true]} predicted as {labels[predicted]}, "
        f"{counts[true][predicted]:,} of {sum(counts[true]):,} words."
    )
