"""Title, abstract and introduction."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peft_methods.methods.registry import METHODS
from peft_methods.report.paper.analysis import in_short
from peft_methods.report.paper.english import capital, counted, joined, listed, number, ratio, was
from peft_methods.report.paper.models import one_recipe_of_models
from peft_methods.report.paper.references import (
    NAMES_OF_DATA,
    cited,
    cited_model,
    data_name,
    model_name,
    of_data,
    of_method,
)
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped
from peft_methods.tasks.registry import task_of

QUESTION = (
    "A pretrained model can be adapted to a task by training all of its weights, a few of them, "
    "or a few added ones. The methods for this differ in the weights that they train, and "
    "therefore in memory, in time, in the size of the checkpoint for each task, and perhaps in "
    "quality. Which of them suits a model, a data set, and a machine must be measured. Such "
    "measurements are easily invalidated: by unequal budgets, by learning rates that suit one "
    "method only, by a single seed, or by memory figures that include other phases."
)
SPENT = {
    "train_seconds": "trained for {} times as long",
    "peak_memory_bytes": "needed {} times as much memory at the peak",
}


def terms(studies: Sequence[Study]) -> tuple[str, ...]:
    """Return the index terms of the paper."""
    tasks = dict.fromkeys(task_of(study.settings).title.lower() for study in studies)
    return ("fine-tuning", "parameter-efficient methods", *tasks, "benchmarking")


def title(studies: Sequence[Study]) -> str:
    """Return the title: the compared methods, model and data."""
    methods = _methods(studies)
    what = f"{next(iter(methods.values()))} Measured"
    if len(methods) > 1:
        what = f"{capital(number(len(methods)))} Fine-Tuning Methods Compared"
    if one_recipe_of_models(studies):
        data = _in_a_title(_sources(studies[0])[1])
        return f"{what} with {capital(number(len(studies)))} Models on {data}"
    if len(studies) > 1:
        return f"{what} on {capital(number(len(studies)))} Recipes"
    model, data = _sources(studies[0])
    return f"{what}: {model_name(model)} on {_in_a_title(data)}"


def _methods(studies: Sequence[Study]) -> dict[str, str]:
    """Return every method's title, as markup."""
    return {row.method: study.title(row.method) for study in studies for row in study.rows}


def _sources(study: Study) -> tuple[str, str]:
    return study.settings.model.source, study.settings.data.source


def _in_a_title(data: str) -> str:
    """Return a data set's name, capitalised if it is one of our own descriptions."""
    name = data_name(data)
    if data not in NAMES_OF_DATA:
        return name
    return re.sub(
        r"\b(?!with\b|the\b|of\b|and\b)[a-z]",
        lambda match: match[0].upper(),
        name.removeprefix("the "),
    )


def abstract(studies: Sequence[Study]) -> str:
    """Return the abstract: what was done, and the findings, in one paragraph."""
    methods = list(_methods(studies).values())
    what = (
        methods[0]
        if len(methods) == 1
        else f"{number(len(methods))} fine-tuning methods ({listed(methods, 8)})"
    )
    what += ", all under one budget," * (len(methods) > 1)
    runs = sum(len(study.finished) for study in studies)
    found = []
    for study in studies:
        lead = f"On {study.name}: " if len(studies) > 1 else ""
        found.append(f"{lead}{joined(in_short(study), study.left_out)}")
        found += _costs_in_short(study)
    return joined(
        f"This paper {'measures' if len(methods) == 1 else 'compares'} {what} {_where(studies)}.",
        f"In total, {counted(runs, 'training run')} {was(runs)} completed.",
        *found,
    )


def _where(studies: Sequence[Study]) -> str:
    if one_recipe_of_models(studies):
        data = data_name(_sources(studies[0])[1])
        return f"with {counted(len(studies), 'model')} on {data}"
    if len(studies) > 1:
        return f"on {counted(len(studies), 'recipe')} of model and data"
    model, data = _sources(studies[0])
    seeds = counted(len(studies[0].seeds), "seed")
    return f"for {model_name(model)} on {data_name(data)}, with {seeds}"


def _costs_in_short(study: Study) -> list[str]:
    """Give the time and memory of the others as multiples of full fine-tuning's."""
    found = []
    for name, phrase in SPENT.items():
        if ratios := [value for _, value in study.ratios(name)]:
            found.append(
                phrase.format(" to ".join(dict.fromkeys((ratio(ratios[0]), ratio(ratios[-1])))))
            )
    others = "the other methods" if len(study.measured) > 2 else "the other method"
    return [f"Relative to full fine-tuning, {others} {' and '.join(found)}."] if found else []


def introduction(studies: Sequence[Study]) -> list[str]:
    """Return the question, the methods with their references, and an overview."""
    methods = _methods(studies)
    return [
        QUESTION,
        "This paper reports such a measurement. "
        f"The {'method is' if len(methods) == 1 else 'methods are'}:",
        "\n".join(
            f"+ _{name}_{cited(*of_method(method))} {_about(method)}"
            for method, name in methods.items()
        ),
        f"@setup describes data, model, budget, and measurement{_on(studies)}; @results reports "
        "the figures, @discussion interprets them and lists threats to their validity, and "
        "@conclusion gives recommendations. A method is called better than another only if the "
        "difference exceeds the chance variation over seeds and test examples.",
    ]


def _about(method: str) -> str:
    info = METHODS.info(method)
    return escaped(info.about) if info and info.about else "is described in the reference."


def _on(studies: Sequence[Study]) -> str:
    if len(studies) > 1:
        return ""
    model, data = _sources(studies[0])
    model_markup = cited_model(model, studies[0].model_type)
    return f" for {model_markup} on {data_name(data)}{cited(*of_data(data))}"
