"""Settings of the data of language models: columns, what is learnt, and what is generated."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from peft_methods.utils.errors import OptionError

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class LanguageData:
    """Settings of `DataSpec` that only the task `causal_lm` reads.

    `prompt` and `completion` name columns, `references` a column with a list of right answers for
    each test row, and `messages` one with lists of {role, content}. `template` makes both parts
    from columns instead: "{question} -> {answer}". Its last field begins the completion; what is
    before it is the prompt. Columns that are not named are inferred.

    `loss_on` says which tokens are learnt: those of the completion, or `all`. For each test row at
    most `max_new_tokens` tokens are generated, with `beams` beams (1: greedily). `answer_pattern`
    is a regular expression with one group, the answer in a text; exact match compares the answers.
    `general_text` is a source of text that has nothing to do with the task: a model's perplexity
    on it before and after training shows what it forgot.

    `test_source`, with its `test_config`, is another source of the test rows, and `test_template`
    the template for its columns, with the same words between them.
    """

    prompt: str | None = None
    completion: str | None = None
    references: str | None = None
    messages: str | None = None
    template: str | None = None
    loss_on: Literal["completion", "all"] = "completion"
    max_new_tokens: Positive = 256
    beams: Positive = 1
    answer_pattern: str | None = None
    general_text: str | None = None
    test_source: str | None = None
    test_config: str | None = None
    test_template: str | None = None

    def check_language(self) -> None:
        """Raise `OptionError` for a template or a pattern that cannot be used."""
        for setting in ("template", "test_template"):
            if (template := getattr(self, setting)) is not None:
                template_fields(template, f"data.{setting}")
        if self.answer_pattern is not None:
            _check_pattern(self.answer_pattern)


def template_fields(template: str, setting: str = "data.template") -> tuple[str, ...]:
    """Return the columns that a template names, in order.

    Raises `OptionError` if it is malformed or has fewer than two fields.
    """
    advice = (
        'It should look like "{question} -> {answer}": column names in braces, the last one with '
        "what is to be learnt; {{ and }} are braces in the text."
    )
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise OptionError(
            f"{setting} = {template!r} is malformed: {error}. {advice}", setting=setting
        ) from None
    fields = [(name, form, conversion) for _, name, form, conversion in parts if name is not None]
    if len(fields) < 2 or any(not name or form or conversion for name, form, conversion in fields):
        raise OptionError(
            f"{setting} = {template!r} has {len(fields)} usable fields. {advice}",
            setting=setting,
        )
    return tuple(name for name, _, _ in fields)


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise OptionError(
            f"data.answer_pattern = {pattern!r} is no regular expression: {error}. An example: "
            f"'#### (.+)'.",
            setting="data.answer_pattern",
        ) from None
    if groups != 1:
        raise OptionError(
            f"data.answer_pattern = {pattern!r} has {groups} groups and should have one, the "
            f"answer: '#### (.+)'. Other parentheses begin with '(?:'.",
            setting="data.answer_pattern",
        )
