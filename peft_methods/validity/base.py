"""What a rule is, what a finding is, and the registry that `rule` fills."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peft_methods.errors import OptionError
from peft_methods.escaping import visible
from peft_methods.methods import METHODS

Severity = Literal["error", "warning", "note"]
Scope = Literal["cell", "row", "method", "comparison"]
SCOPES: dict[Scope, str] = {
    "cell": "one cell's record",
    "row": "one cell, or one row of an audited table",
    "method": "all seeds of one method",
    "comparison": "all methods of one recipe, or all rows of an audited table",
}


def is_floor(method: str | None) -> bool:
    """Whether the method only shows what a frozen encoder gives: it trains the head alone."""
    info = METHODS.info(method)
    return info is not None and info.scope == "head"


def is_quantized(method: str | None) -> bool:
    """Whether the method holds the base weights in few bits."""
    info = METHODS.info(method)
    return info is not None and info.quantization is not None


@dataclass(frozen=True)
class Finding:
    """What a rule says about one cell, one method, or one row of a table."""

    rule: str
    severity: Severity
    subject: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return visible(
            f"{self.rule} {self.severity} {self.subject}: {self.evidence} → {self.advice}"
        )


@dataclass(frozen=True)
class Rule:
    """A rule's stable id, how bad it is, what it is asked about, and the function that answers.

    A check of scope `cell` gets a `Record`, of scope `method` the list of those of all seeds, of scope `row` a `Figures`;
    each gives (evidence, advice) pairs. Of scope `comparison` it gets a list of `Figures`, one a method, and gives
    (subject, evidence, advice). Whatever it needs and is not there is None, and then it says nothing.
    """

    id: str
    severity: Severity
    scope: Scope
    title: str
    check: Callable[[Any], Iterable[Sequence[str]]]


REGISTRY: dict[str, Rule] = {}


def rule(
    id: str, severity: Severity, scope: Scope
) -> Callable[[Callable[[Any], Iterable[Sequence[str]]]], Rule]:
    """Register a rule; its title is the first line of its docstring."""

    def register(check: Callable[[Any], Iterable[Sequence[str]]]) -> Rule:
        made = Rule(id, severity, scope, (check.__doc__ or "").strip().splitlines()[0], check)
        assert id not in REGISTRY, f"two rules are called {id}"
        REGISTRY[id] = made
        return made

    return register


def silenced(text: str, where: str) -> tuple[str, ...]:
    """'V105,V301' -> those ids. Raises `OptionError` for one that is no rule's."""
    ids = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",")))
    for one in ids:
        if one not in REGISTRY:
            raise OptionError(
                f"{where} {text!r}: there is no rule {one!r}.{_nearest_rule(one)} pytest --peft-rules lists them."
            )
    return ids


def _nearest_rule(name: str) -> str:
    ids = {rule.lower(): rule for rule in REGISTRY}
    close = difflib.get_close_matches(name.lower(), ids, n=1, cutoff=0.5)
    return f" Did you mean {ids[close[0]]!r}?" if close else ""


def some(names: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
