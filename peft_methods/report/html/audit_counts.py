"""The counts of an audited table beside what they were compared with: formula, settings, paper."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from peft_methods.analysis.checks.counts.solving import tried
from peft_methods.analysis.checks.group import Group
from peft_methods.analysis.checks.parameter_counts import row_verdict, setting_words
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.external.audit import Audit
from peft_methods.methods.registry import METHODS

VERDICTS = {
    "fits": "possible",
    "off": "impossible",
    "head missing": "without the head's dense layer",
    "nothing": "the head alone",
}
MOST_CLASSES = 3  # numbers of classes that a line names


@dataclass(frozen=True)
class CountView:
    """A row's count, the verdict, and what the verdict goes by.

    - `severity`: "error" for a verdict that a rule reports as one, else empty.
    - `model`: the model that the count was compared on, and the settings that the row names.
    - `formula`: the method's closed form, without a head.
    - `tried`: the counts that were compared with, or why there is no verdict.
    - `paper`: the source of the method.
    """

    subject: str
    count: str
    verdict: str
    severity: str
    model: str
    formula: str
    tried: str
    paper: str


def counts_of(audit: Audit) -> Iterator[CountView]:
    """Yield a line for each count of a method that is registered."""
    for group in audit.groups:
        for row in group.rows:
            if row.trainable is not None and METHODS.info(row.method) is not None:
                yield _view(group, row)


def _view(group: Group, row: ResultRow) -> CountView:
    method = METHODS[str(row.method)]
    own, verdict = tried(str(row.method)), row_verdict(row)
    described = inspect.getdoc(method.expected_trainable) or ""
    against = f"{(own or '').replace('`', '')}; with a head and without"
    if own is None:
        against = "no verdict: the settings that give its counts are not enumerated"
    elif not row.architectures:
        against = "no verdict: the model is not known"
    elif verdict is None:
        against = "no verdict: unusual settings may have such a count"
    return CountView(
        group.subject_of(row),
        str(row.trainable and row.trainable.text),
        VERDICTS.get(verdict or "", "–"),
        "error" if verdict not in {None, "fits"} else "",
        _model(row) + setting_words(row).replace(" with ", "; "),
        " ".join(described.partition("\n\n")[0].split()),
        against,
        method.info.paper,
    )


def _model(row: ResultRow) -> str:
    if not row.architectures:
        return "–"
    first = row.architectures[0]
    text = f"{first.model_type}, {first.layers} layers of width {first.hidden}"
    classes = sorted({one.labels for one in row.architectures if one.labels})
    if 0 < len(classes) <= MOST_CLASSES:
        text += f", {' or '.join(map(str, classes))} classes"
    return text
