"""Title, abstract and introduction."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peft_methods.report.paper.analysis import best_in_short
from peft_methods.report.paper.english import counted, listed, number, ratio
from peft_methods.report.paper.references import NAMES_OF_DATA, cited, data_name, model_name, of_data, of_method, of_model
from peft_methods.report.paper.study import Study

TERMS = ("fine-tuning", "parameter-efficient methods", "text classification", "benchmarking")
ABOUT = {
    "full": "trains every weight of the encoder together with a new classification head. "
    "It is the usual way, and what the costs of the others are measured against.",
    "head_only": "leaves the encoder as it was pretrained and trains the classification head alone. "
    "It shows what the frozen features give, a floor under the other methods.",
    "bitfit": "trains the bias vectors of the encoder and the head, and leaves all weight matrices frozen.",
    "lora": "adds to chosen weight matrices a trained update of low rank. The matrices themselves stay frozen, and the update can be "
    "folded into them after training.",
    "qlora": "trains the same low-rank updates over an encoder whose frozen weights are held in a 4-bit number format, "
    "trading arithmetic for memory.",
    "ia3": "learns vectors that rescale keys, values, and the inner activations of the feed-forward blocks, and nothing else of the encoder.",
    "adapter": "inserts small trained blocks with a narrow middle, each with a residual connection around it, into the frozen layers.",
    "adapter_fusion": "first trains bottleneck adapters on other tasks, freezes them, and then trains an attention over their outputs "
    "for the task at hand.",
}


def title(studies: Sequence[Study]) -> str:
    """What was compared, on what."""
    methods = _methods(studies)
    what = studies[0].title(methods[0]) if len(methods) == 1 else f"{_capital(number(len(methods)))} Fine-Tuning Methods Compared"
    if len(studies) > 1:
        return f"{what} on {_capital(number(len(studies)))} Recipes"
    model, data = (studies[0].spec[part]["source"] for part in ("model", "data"))
    known = re.sub(r"\b(?!with\b|the\b|of\b|and\b)[a-z]", lambda match: match[0].upper(), data_name(data).removeprefix("the ")) if data in NAMES_OF_DATA else data_name(data)
    return f"{what}: {model_name(model)} on {known}"


def abstract(studies: Sequence[Study]) -> str:
    """What was done, what came out, in one paragraph."""
    cells = sum(len(study.finished) for study in studies)
    found = [f"This paper compares {_what(studies)} under one budget for all."]
    found.append(f"In all, {counted(cells, 'training run')} {'was' if cells == 1 else 'were'} completed.")
    for study in studies:
        found.append((f"On {study.name}: " if len(studies) > 1 else "") + best_in_short(study))
        found += _costs_in_short(study)
    return " ".join(found)


def _what(studies: Sequence[Study]) -> str:
    methods = [row for study in studies for row in study.rows]
    titles = list(dict.fromkeys(study.title(row.method) for study in studies for row in study.rows))
    what = titles[0] if len(titles) == 1 else f"{number(len(titles))} fine-tuning methods ({listed(titles, 8)})"
    assert methods, "a study has a row"
    if len(studies) > 1:
        return f"{what} on {counted(len(studies), 'recipe')} of model and data"
    model, data = (studies[0].spec[part]["source"] for part in ("model", "data"))
    return f"{what} for {model_name(model)} on {data_name(data)}, with {counted(len(studies[0].seeds), 'seed')} each"


def _costs_in_short(study: Study) -> list[str]:
    """Training time and memory of the others as multiples of full fine-tuning's."""
    full, found = study.full(), []
    for name, said_as in (("train_seconds", "trained for {} times as long"), ("peak_memory_bytes", "needed {} times as much memory at the peak")):
        others = [row for row in study.known(name) if row is not full]
        if full is not None and others and full.figures.get(name) and full.mean(name) > 0:
            ends = [ratio(row.mean(name) / full.mean(name)) for row in (others[0], others[-1])]
            found.append(said_as.format(" to ".join(dict.fromkeys(ends))))
    who = "the other methods" if len(study.measured) > 2 else "the other method"
    return [f"Relative to full fine-tuning, {who} {' and '.join(found)}."] if found else []


def introduction(studies: Sequence[Study]) -> list[str]:
    """The question, the methods with their references, and what follows."""
    methods = {row.method: study.title(row.method) for study in studies for row in study.rows}
    parts = [
        "Whoever adapts a pretrained encoder to a task of their own may train all of its weights or only a few, old or added ones. The methods for "
        "this differ in what they train, and so in memory, in time, in the size of what is to be kept for each task, and perhaps in quality. "
        "Which of them suits a model, a data set, and a machine is a question of measurement, and the answer is easily spoiled: by unlike budgets, by "
        "learning rates that suit one method only, by a single seed, or by memory figures that contain what other phases left.",
        f"This paper reports such a measurement. The methods {'is' if len(methods) == 1 else 'are'}:".replace("methods is", "method is"),
        "\n".join(f"+ _{title}_{cited(*of_method(method))} {ABOUT.get(method, 'is described in the reference.')}" for method, title in methods.items()),
        f"@setup describes data, model, budget, and measuring{_on(studies)}; @results has the figures, @discussion what they mean and what may be wrong "
        "with them, and @conclusion what they recommend. A method is called better than another only where the difference is more than the chance of "
        "seeds and test examples explains.",
    ]
    return parts


def _on(studies: Sequence[Study]) -> str:
    spec = studies[0].spec
    model, data = spec["model"]["source"], spec["data"]["source"]
    return "" if len(studies) > 1 else f" for {model_name(model)}{cited(*of_model(model))} on {data_name(data)}{cited(*of_data(data))}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _methods(studies: Sequence[Study]) -> list[str]:
    return list(dict.fromkeys(row.method for study in studies for row in study.rows))
