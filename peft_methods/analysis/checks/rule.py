"""The `Rule` and `Finding` types, and the registry that the decorator `rule` fills."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from peft_methods.methods.registry import METHODS
from peft_methods.utils.errors import OptionError, nearest
from peft_methods.utils.sanitize import visible

Severity = Literal["error", "warning", "note"]
Scope = Literal["run", "row", "method", "comparison", "table"]
SCOPES: dict[Scope, str] = {
    "run": "the record of one run",
    "row": "one run, or one row of an audited table",
    "method": "all seeds of one method",
    "comparison": "all methods of one recipe, or of one group of an audited table",
    "table": "one group of an audited table: the rows of one model, data set and task",
}
ROWS_NEEDED: dict[Scope, int] = {"row": 1, "comparison": 2, "table": 1}  # of audited tables


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
    """One problem that a rule found: in a run, a method, or a row of a table.

    `rows` are the rows of a comparison that it concerns, as (recipe, method). Those of a
    prerequisite run are the rows that depend on it. `lines` are the lines of an audited table,
    from 0.
    """

    rule: str
    severity: Severity
    subject: str
    evidence: str
    advice: str
    rows: frozenset[tuple[str, str]] = field(default=frozenset(), compare=False)
    lines: tuple[int, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return visible(
            f"{self.rule} {self.severity} {self.subject}: {self.evidence} → {self.advice}"
        )


@dataclass(frozen=True)
class Rule:
    """A rule's stable id, its severity, the scope of its input, and the function that checks it.

    A check of scope `run` gets a `Record`, one of scope `method` the records of all seeds, and one
    of scope `row` a `ResultRow`. Each of these yields (evidence, advice) pairs. A check of scope
    `comparison` gets a list of `ResultRow`, one per method, and one of scope `table` a `Group`;
    both yield (subject, evidence, advice).
    Values that are not known are None; a check that needs one of them yields nothing.

    `needs` has the fields of `ResultRow` without which a check of scope `row`, `comparison` or
    `table` finds nothing: one entry for each way to find something, with all fields of that way.
    `rows` is the least number of rows that must have them.

    `evidence` has the texts of its evidence, with … for values, where `explain` cannot read them
    from the check's code: those made of values alone, or by another function.
    """

    id: str
    severity: Severity
    scope: Scope
    title: str
    check: Callable[[Any], Iterable[Sequence[str]]]
    evidence: tuple[str, ...] = ()
    needs: tuple[tuple[str, ...], ...] = ()
    rows: int = 1

    @property
    def named(self) -> str:
        """The id with the title: 'V301 (The test accuracy is …)'."""
        return f"{self.id} ({self.title.rstrip('.')})"


REGISTRY: dict[str, Rule] = {}


def rule(
    id: str,
    severity: Severity,
    scope: Scope,
    evidence: tuple[str, ...] = (),
    *,
    needs: tuple[str, ...] = (),
    rows: int | None = None,
) -> Callable[[Callable[[Any], Iterable[Sequence[str]]]], Rule]:
    """Register a rule. The first line of the check's docstring is the rule's title.

    `evidence`, `needs` and `rows`: see `Rule`. Each entry of `needs` has its fields in one text,
    separated by spaces.
    """
    ways = tuple(tuple(one.split()) for one in needs)
    least = ROWS_NEEDED.get(scope, 1) if rows is None else rows

    def register(check: Callable[[Any], Iterable[Sequence[str]]]) -> Rule:
        title = (check.__doc__ or "").strip().splitlines()[0]
        made = Rule(id, severity, scope, title, check, evidence, ways, least)
        assert id not in REGISTRY, f"two rules have the id {id}"
        REGISTRY[id] = made
        return made

    return register


def parse_silenced(text: str) -> tuple[str, ...]:
    """Parse 'V105,V301' into rule ids. Raises `OptionError` for an unknown id."""
    ids = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",")))
    for one in ids:
        if one not in REGISTRY:
            raise OptionError(
                f"silence {text!r}: unknown rule {one!r}.{nearest(one, REGISTRY)} "
                f"Allowed: {_id_ranges()}, separated by commas.",
                setting="silence",
            )
    return ids


def find_rule(name: str) -> Rule:
    """Return the rule with this id. Raises `OptionError`, which names the nearest id."""
    found = REGISTRY.get(name.strip().upper())
    if found is None:
        raise OptionError(
            f"unknown check {name!r}.{nearest(name, REGISTRY)} Allowed: {_id_ranges()}."
        )
    return found


def _id_ranges() -> str:
    """Format all rule ids as ranges: 'V101 to V108, V201 to V210'."""
    groups: dict[str, list[str]] = {}
    for id in sorted(REGISTRY):
        groups.setdefault(id[:2], []).append(id)
    return ", ".join(f"{ids[0]} to {ids[-1]}" for ids in groups.values())


def first_three(names: Sequence[str]) -> str:
    """Format the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
