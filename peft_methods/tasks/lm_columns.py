"""From columns to prompts and completions: the layouts of data for language models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from peft_methods.data.columns import check_texts
from peft_methods.data.labelled_texts import LabelledTexts, Turns
from peft_methods.data.labelling import ParsedData
from peft_methods.data.raw import RawData, RawTable, find_column
from peft_methods.recipes.language_data import template_fields
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.column_kinds import are_turns, column_among, is_gap, values_of
from peft_methods.tasks.generation_scores import SCORES
from peft_methods.tasks.lm_rows import Rows, chat_rows, merge_references, reference_lists
from peft_methods.utils.errors import DataError, nearest
from peft_methods.utils.words import counted

PROMPTS = ("prompt", "instruction", "question", "query", "mr", "meaning_representation", "input")
COMPLETIONS = ("completion", "response", "answer", "output", "ref", "human_reference", "target")
REFERENCES = ("refs", "references")
MESSAGES = ("messages", "conversation", "conversations")
UNMISTAKABLE = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
)
TEXTS = ("text", "content", "document")


@dataclass(frozen=True)
class Layout:
    """The columns of a source that hold prompts and completions.

    `text`, `messages`, or `prompt` with `completion`; with `template` the columns that it names.
    `references` has the right answers of the test rows, where there is such a column.
    """

    text: str = ""
    messages: str = ""
    prompt: str = ""
    completion: str = ""
    references: str = ""
    template: str = ""

    def read(self, table: RawTable, split: str, spec: DataSpec) -> LabelledTexts:
        """Return the rows of a split. Raises `DataError` that names the first bad one."""
        if split == "test" and spec.test_template is not None:
            own = _by_template(spec.test_template, "test_template", table.columns, spec)
            return _merged(own._pairs(table, split, spec), split)
        if self.text:
            texts = check_texts(_values(table, self.text, split, spec), self.text, split, spec)
            return LabelledTexts(texts, [""] * len(texts))
        if self.messages:
            turns = _values(table, self.messages, split, spec)
            return _merged(chat_rows(turns, self.messages, split, spec), split)
        return _merged(self._pairs(table, split, spec), split)

    def _pairs(self, table: RawTable, split: str, spec: DataSpec) -> Rows:
        answers = self._answers(table, split, spec)
        if self.template:
            return _from_template(self.template, table, answers, split, spec)
        prompts = check_texts(_values(table, self.prompt, split, spec), self.prompt, split, spec)
        return Rows(*zip(*map(_joined, prompts, answers), strict=True)) if prompts else Rows()

    def _answers(self, table: RawTable, split: str, spec: DataSpec) -> list[tuple[str, ...]]:
        """Return the right answers of each row: those listed for test rows, else one."""
        if split == "test" and self.references and find_column(self.references, table.columns):
            return reference_lists(table.values(self.references), self.references, split, spec)
        values = _values(table, self.completion, split, spec)
        return [(one,) for one in check_texts(_plain(values), self.completion, split, spec)]


def parse_examples(raw: RawData, spec: DataSpec) -> ParsedData:
    """Return prompts as texts and completions as labels. Raises `DataError` that names the cause.

    A label is a completion, a tuple of them where several are right, or "" where the whole text is
    to be learnt.
    """
    layout = find_layout(raw, spec)
    if layout.text and spec.rank_by in SCORES:
        raise DataError(
            f"{spec.source}: data.rank_by = {spec.rank_by!r} compares generated texts, but nothing "
            f"is generated from the plain text in {layout.text!r}. Set it to 'token_loss' or "
            f"'perplexity', or data.prompt and data.completion to the names of columns.",
            setting="data.rank_by",
        )
    tables = {split: layout.read(table, split, spec) for split, table in raw.tables.items()}
    return ParsedData(tables, (), notes=_notes(layout, tables, spec))


def find_layout(raw: RawData, spec: DataSpec) -> Layout:
    """Return the columns that the recipe names, or else those with known names.

    Raises `DataError` if there are none, or if they cannot be told.
    """
    columns = raw.first.columns
    references = _find(spec.references, "references", _all_columns(raw), spec) or _known(
        REFERENCES, _all_columns(raw)
    )
    if spec.template is not None:
        return replace(
            _by_template(spec.template, "template", columns, spec), references=references
        )
    if spec.messages is not None:
        return Layout(messages=_find(spec.messages, "messages", columns, spec))
    named = {"prompt": spec.prompt, "completion": spec.completion}
    found = {role: _find(name, role, columns, spec) for role, name in named.items()}
    if not any(found.values()):
        if spec.text is not None:
            return Layout(text=_find(spec.text, "text", columns, spec))
        if messages := _known(MESSAGES, columns):
            return Layout(messages=messages)
    free = [column for column in columns if column not in found.values()]
    prompt = found["prompt"] or _known(PROMPTS, free)
    completion = found["completion"] or _known(COMPLETIONS, free)
    if prompt and completion:
        _refuse_third_part(prompt, spec, free)
        return Layout(prompt=prompt, completion=completion, references=references)
    if not any(found.values()) and (text := _known(TEXTS, columns)):
        return Layout(text=text)
    lacking = "completion" if prompt else "prompt"
    raise DataError(
        f"{spec.source}: no {lacking} column among {', '.join(columns)}. Set data.prompt and "
        f"data.completion to the names of columns, data.messages to one with lists of "
        f'{{role, content}}, data.text to plain text, or data.template = "{{question}} -> '
        f'{{answer}}".',
        setting=f"data.{lacking}",
    )


def language_columns(raw: RawData, spec: DataSpec) -> str:
    """Return why the columns can only be for a language model; empty if they need not be.

    Names such as "question" or "text" may also be those of a classification.
    """
    if spec.template or spec.messages or (spec.prompt and spec.completion):
        return "the recipe names the columns of prompts and completions"
    messages = column_among(raw.first, None, MESSAGES)
    if are_turns(values_of(raw.first, messages)):
        return f"the values of {messages!r} are turns of a chat"
    for prompt, completion in UNMISTAKABLE:
        found = [find_column(name, raw.first.columns) for name in (prompt, completion)]
        if None not in found:
            return f"there are columns {found[0]!r} and {found[1]!r}"
    return ""


def _by_template(template: str, setting: str, columns: Sequence[str], spec: DataSpec) -> Layout:
    fields = template_fields(template)
    for name in fields:
        _find(name, setting, columns, spec)
    return Layout(template=template, completion=fields[-1])


def _refuse_third_part(prompt: str, spec: DataSpec, free: Sequence[str]) -> None:
    """Raise `DataError` for instructions with inputs of their own, which would be left out."""
    if spec.prompt is None and prompt == "instruction" and "input" in free:
        raise DataError(
            f"{spec.source}: the column 'input' may belong to the prompt, too. Set data.template, "
            f'for example "{{instruction}}\\n{{input}}\\n{{output}}", or data.prompt = '
            f'"instruction" to leave it out.',
            setting="data.template",
        )


def _notes(layout: Layout, tables: dict[str, LabelledTexts], spec: DataSpec) -> tuple[str, ...]:
    if layout.text:
        return ("Loss on all tokens of the texts; nothing is generated.",)
    learnt = "prompt and completion" if spec.loss_on == "all" else "the completion only"
    parts = f"the columns {layout.prompt!r} and {layout.completion!r}"
    if layout.messages:
        parts = f"{layout.messages!r}: the last turn of the assistant is the completion"
    elif layout.template:
        parts = f"the template {layout.template!r}: the completion begins with the last field"
    notes = [f"Loss on {learnt}, with the end-of-sequence token ({parts})."]
    if several := sum(isinstance(label, tuple) for label in tables.get("test", _EMPTY).labels):
        notes.append(
            f"In the source {counted(several, 'test prompt has', 'test prompts have')} several "
            f"references: the loss is that of the first, generated text is compared with all."
        )
    how = "greedily" if spec.beams == 1 else f"with {spec.beams} beams"
    notes.append(
        f"For each test row up to {counted(spec.max_new_tokens, 'token')} are generated, {how}."
    )
    return tuple(notes)


_EMPTY = LabelledTexts([], [])


def _merged(rows: Rows, split: str) -> LabelledTexts:
    """Return rows as texts with labels; test rows with the same prompt become one."""
    rows = merge_references(rows) if split == "test" else rows
    labels = [found[0] if len(found) == 1 else found for found in rows.answers]
    turns: list[Turns] | None = list(rows.turns) if rows.turns else None
    return LabelledTexts(list(rows.prompts), labels, turns=turns)


def _joined(prompt: str, answers: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return prompt and answers, with a line break between them unless either has white space."""
    if prompt[-1].isspace() or answers[0][0].isspace():
        return _without_blank(prompt, answers)
    return f"{prompt}\n", tuple(answers)


def _without_blank(prompt: str, answers: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Move blanks at the end of a prompt to the answers, where tokenizers expect them."""
    bare = prompt.rstrip(" ")
    if not bare:
        return prompt, tuple(answers)
    return bare, tuple(prompt[len(bare) :] + answer for answer in answers)


def _from_template(
    template: str,
    table: RawTable,
    answers: Sequence[tuple[str, ...]],
    split: str,
    spec: DataSpec,
) -> Rows:
    """Fill in a template. Its last field is filled with each answer of a row."""
    *names, last = template_fields(template)
    head, _, tail = template.rpartition(f"{{{last}}}")
    columns = {name: _plain(_values(table, name, split, spec)) for name in dict.fromkeys(names)}
    prompts = [
        head.format(**dict(zip(columns, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]
    filled = [tuple(answer + tail.format() for answer in found) for found in answers]
    check_texts(list(prompts), "prompt (data.template)", split, spec)
    return Rows(*zip(*map(_without_blank, prompts, filled), strict=True)) if prompts else Rows()


def _values(table: RawTable, column: str, split: str, spec: DataSpec) -> list[Any]:
    if find_column(column, table.columns) is None:
        raise DataError(
            f"{spec.source}: column {column!r} of train is missing in {split}, which has "
            f"{', '.join(table.columns)}."
        )
    return table.values(column)


def _plain(values: Sequence[Any]) -> list[object]:
    """Return numbers as texts, as templates and answers may have them, and missing values as ""."""
    return [
        str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for value in ("" if is_gap(value) else value for value in values)
    ]


def _find(name: str | None, role: str, columns: Sequence[str], spec: DataSpec) -> str:
    """Return the column that the recipe names, "" for none. Raises `DataError`."""
    if name is None:
        return ""
    found = find_column(name, columns)
    if found is None:
        raise DataError(
            f"{spec.source}: no column {name!r}.{nearest(name, columns)} "
            f"Columns: {', '.join(columns)}.",
            setting=f"data.{role}",
        )
    return found


def _known(names: Sequence[str], columns: Sequence[str]) -> str:
    return next((one for name in names if (one := find_column(name, columns)) is not None), "")


def _all_columns(raw: RawData) -> list[str]:
    return list(dict.fromkeys(name for table in raw.tables.values() for name in table.columns))
