"""Rows of data for language models: conversations, and lists of right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft_methods.data.labelled_texts import Turns
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.column_kinds import is_gap
from peft_methods.utils.errors import DataError

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Rows:
    """Prompts, the right answers of each, and the turns before the answer in conversations."""

    prompts: Sequence[str] = ()
    answers: Sequence[tuple[str, ...]] = ()
    turns: Sequence[Turns] = ()


def chat_rows(values: Sequence[Any], column: str, split: str, spec: DataSpec) -> Rows:
    """Return rows from lists of {role, content}. Raises `DataError` that names the first bad row.

    The last turn of the assistant is the answer. Turns after it are left out.
    """
    prompts, answers, kept = [], [], []
    for row, value in enumerate(values):
        where = f"{spec.source}: {column!r} of row {row} of {split}"
        turns = _turns(value, where)
        last = max((n for n, (role, _) in enumerate(turns) if role == "assistant"), default=-1)
        if last < 0:
            raise DataError(
                f"{where} has no turn of the role 'assistant', so there is nothing to learn. Add "
                f"one or remove the row.",
                setting="data.messages",
            )
        before, (_, answer) = turns[:last], turns[last]
        if not before or not answer.strip():
            missing = "an empty answer" if before else "no turn before its answer"
            raise DataError(
                f"{where} has {missing}. Add one or remove the row.", setting="data.messages"
            )
        prompts.append("\n".join(f"{role}: {content}" for role, content in before))
        answers.append((answer,))
        kept.append(before)
    return Rows(prompts, answers, kept)


def _turns(value: Any, where: str) -> Turns:
    """Return a conversation as (role, content) pairs."""
    try:
        found = [(dict(turn)["role"], dict(turn)["content"]) for turn in value]
    except (TypeError, ValueError, KeyError):
        found = []
    if not found or not all(isinstance(part, str) for turn in found for part in turn):
        keys = ""
        if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            keys = f" with the keys {', '.join(map(str, value[0]))}"
        raise DataError(
            f"{where} is no list of turns with role and content, both texts: it is "
            f"{_kind(value)}{keys}. Write each row as "
            f'[{{"role": "user", "content": "…"}}, {{"role": "assistant", "content": "…"}}].',
            setting="data.messages",
        )
    if unknown := next((role for role, _ in found if role not in ROLES), None):
        raise DataError(
            f"{where} has a turn of the role {unknown!r}. Allowed: {', '.join(ROLES)}.",
            setting="data.messages",
        )
    return tuple(found)


def _kind(value: Any) -> str:
    if is_gap(value):
        return "missing"
    is_empty = hasattr(value, "__len__") and len(value) == 0
    return "empty" if is_empty else f"a {type(value).__name__}"


def reference_lists(
    values: Sequence[Any], column: str, split: str, spec: DataSpec
) -> list[tuple[str, ...]]:
    """Return the right answers of each row from a column with lists of texts, or one text each.

    Raises `DataError` that names the first row without any.
    """
    found = [(value,) if isinstance(value, str) else _listed(value) for value in values]
    for row, answers in enumerate(found):
        if not answers or not all(isinstance(one, str) and one.strip() for one in answers):
            raise DataError(
                f"{spec.source}: {column!r} of row {row} of {split} is no list of texts: "
                f"{values[row]!r}. Give each test row one or more right answers.",
                setting="data.references",
            )
    return found


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if hasattr(value, "__iter__") and not isinstance(value, Mapping) else ()


def merge_references(rows: Rows) -> Rows:
    """Return one row for each prompt, with the distinct answers of all its rows."""
    places: dict[Any, int] = {}
    answers: dict[Any, dict[str, None]] = {}
    for row, prompt in enumerate(rows.prompts):
        key = rows.turns[row] if rows.turns else prompt
        places.setdefault(key, row)
        answers.setdefault(key, {}).update(dict.fromkeys(rows.answers[row]))
    first = list(places.values())
    return Rows(
        [rows.prompts[row] for row in first],
        [tuple(found) for found in answers.values()],
        [rows.turns[row] for row in first] if rows.turns else (),
    )
