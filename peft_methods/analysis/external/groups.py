"""Groups of an audited table's rows: those of one model, data set and task can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from peft_methods.analysis.checks.group import Group
from peft_methods.analysis.checks.parameter_counts import (
    candidates,
    models_of_size,
    without_classes,
)
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.external.seeds import entries_of
from peft_methods.analysis.external.vocabulary import data_in, key_of, model_in, without_words
from peft_methods.methods.registry import METHODS
from peft_methods.utils.words import counted

ADDED = ("+", "w/", "with ", "↳", "&")  # how the name of a row under a model's own row begins
INHERITED = "rows without a model are taken as rows of the model above them"
NO_MODEL = "no column names the models: each row is taken as one of the model above it"


def groups_of(rows: Sequence[ResultRow]) -> tuple[Group, ...]:
    """Return the groups, in the order of their first rows.

    A row's model and data set are those of its columns, or the words for them in its method's
    name, or, for models, those of the count of full fine-tuning above it. A row without a model
    belongs to the only model that others name, or to that of the row above it where the table
    groups rows in this way (see `_inherited`). Different data sets and tasks make groups only if
    a method occurs with several of them: else the rows claim to be a comparison, which rule V503
    judges.
    """
    numbered = len({row.line for row in rows}) == len(rows)
    numbered_rows = [
        row if numbered else replace(row, line=place) for place, row in enumerate(rows)
    ]
    named = _inherited(numbered_rows, [_named(row) for row in numbered_rows])
    models, remarks = _models(named)
    if [one.model for one in named] != [_named(row).model for row in rows]:
        remarks = {key: [*remarks.get(key, []), INHERITED] for key in models}
    data = _parting(named, lambda row: key_of(row.data or data_in(row.name)))
    tasks = _parting(named, lambda row: key_of(row.task or ""))
    places: dict[tuple[str, str, str], list[int]] = {}
    for place, key in enumerate(zip(models, data, tasks, strict=True)):
        places.setdefault(key, []).append(place)
    return tuple(
        _group(key, [named[place] for place in found], len(places) > 1, remarks)
        for key, found in places.items()
    )


def _named(row: ResultRow) -> ResultRow:
    return row if row.model else replace(row, model=model_in(row.name))


def _inherited(given: Sequence[ResultRow], rows: list[ResultRow]) -> list[ResultRow]:
    """Give rows without a model that of the row above, where a table groups its rows by model.

    Such tables write "+ LoRA" below a model's own row, or each model once, in its first row: then
    a column names the models, and no method occurs twice below one of them.
    """
    added = [row.name.strip().casefold().startswith(ADDED) for row in rows]
    is_under = all(row.model for row, is_added in zip(rows, added, strict=True) if not is_added)
    if not is_under and not _is_written_once(given):
        return rows
    found = list(rows)
    for place, row in enumerate(found):
        if not row.model and place:
            found[place] = replace(row, model=found[place - 1].model)
    return found


def _is_written_once(rows: Sequence[ResultRow]) -> bool:
    """Whether a column has each model once, in the first of its rows."""
    blocks: list[list[str]] = []
    for row in rows:
        if row.model:
            blocks.append([])
        if not blocks:
            return False
        blocks[-1].append(row.name)
    models = [key_of(row.model) for row in rows if row.model]
    return (
        len(set(models)) == len(models)
        and all(len(set(block)) == len(block) for block in blocks)
        and all(len(block) > 1 for block in blocks)
    )


def _models(rows: Sequence[ResultRow]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the model of each row as a key, and the remarks by key."""
    keys = [key_of(row.model) for row in rows]
    known = {key for key in keys if key}
    if not known:
        return _models_by_size(rows)
    unnamed = [row.name for row, key in zip(rows, keys, strict=True) if not key]
    if len(known) == 1:
        (only,) = known
        return [only] * len(rows), {}
    many = f"{counted(len(known), 'model')} are named, but none for {', '.join(unnamed)}"
    if not unnamed:
        return keys, {}
    # Each is a group of its own: which model it is about is not known.
    apart = [key or f"row {place}" for place, key in enumerate(keys, 1)]
    remark = f"{many}: not compared with the other rows"
    return apart, {key: [remark] for key, own in zip(apart, keys, strict=True) if not own}


def _models_by_size(rows: Sequence[ResultRow]) -> tuple[list[str], dict[str, list[str]]]:
    """Part the rows where full fine-tuning trains another model's number of parameters."""
    keys, current = [], ""
    sizes: list[set[tuple[str, int, int]]] = []
    for row in rows:
        if row.method == METHODS.reference and row.trainable:
            found = {(a.model_type, a.layers, a.hidden) for a in models_of_size(row.trainable)}
            if found and not (sizes and found & sizes[-1]):
                current = row.trainable.text
            sizes += [found] if found else []
        keys.append(current)
    first = next(filter(None, keys), "")  # rows above the first full fine-tuning are its model's
    keys = [key or first for key in keys]
    is_parted = len(set(keys)) > 1
    return keys, {key: [NO_MODEL] for key in set(keys)} if is_parted else {}


def _parting(rows: Sequence[ResultRow], of: Callable[[ResultRow], str]) -> list[str]:
    """Return a key for each row: all are equal unless a method occurs with several of them."""
    keys = [of(row) for row in rows]
    seen: dict[str, set[str]] = {}
    for row, key in zip(rows, keys, strict=True):
        seen.setdefault(row.method or without_words(row.name), set()).add(key)
    return keys if any(len(found) > 1 for found in seen.values()) else [""] * len(rows)


def _group(
    key: tuple[str, str, str],
    rows: Sequence[ResultRow],
    is_one_of_several: bool,
    remarks: dict[str, list[str]],
) -> Group:
    known = _with_models(rows)
    methods, lines, repeated = entries_of(known)
    title = _title(key, rows) if is_one_of_several else ""
    return Group(title, known, methods, lines, (*remarks.get(key[0], ()), *repeated))


def _title(key: tuple[str, str, str], rows: Sequence[ResultRow]) -> str:
    model = next((row.model for row in rows if row.model), _of_count(key[0]))
    data = next((row.data or data_in(row.name) for row in rows), "") if key[1] else ""
    task = next((row.task for row in rows if row.task), "") if key[2] else ""
    return ", ".join(part for part in (model, data, task) if part) or "rows without a model"


def _of_count(count: str) -> str:
    return f"model of {count} parameters" if count else ""


def _with_models(rows: Sequence[ResultRow]) -> tuple[ResultRow, ...]:
    """Add to each row the architectures that it may be about, and their number of parameters.

    They are those of the model that the row names, or else those whose size is what full
    fine-tuning trained.
    """
    fulls = {row.trainable for row in rows if row.method == METHODS.reference and row.trainable}
    data = {(key_of(row.data or data_in(row.name)), key_of(row.task or "")) for row in rows}
    full = next(iter(fulls)) if len(fulls) == 1 else None
    found = []
    for row in rows:
        # The parameter count of full fine-tuning reveals the number of classes.
        architectures = row.architectures or tuple(
            dict.fromkeys(one for count in fulls or (None,) for one in candidates(row.model, count))
        )
        if len(fulls) > 1 or len(data) > 1:  # heads of other sizes
            architectures = tuple(dict.fromkeys(map(without_classes, architectures)))
        first = architectures[0] if architectures else None
        total = row.total_parameters
        if total is None and first is not None:
            total = first.encoder_parameters + first.head_parameters
        elif total is None:
            total = full.low if full else row.total.low if row.total else None
        found.append(replace(row, architectures=architectures, total_parameters=total))
    return tuple(found)
