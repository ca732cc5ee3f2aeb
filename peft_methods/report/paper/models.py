"""The part of the paper on several models: the best method of each, compared on the same rows."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.analysis.models import BestOfModel, ModelsCompared, compare_models
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import MISSING
from peft_methods.report.paper.english import counted, gap, interval, joined, plain, tidy
from peft_methods.report.paper.references import model_name
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped, table
from peft_methods.report.text.models import COSTS, MODELS_NOTE, cost_of, missing_models

LEAD = (
    "@{label} compares {count} that were trained with the recipe “{name}” on the same rows, each "
    "by its method with the best mean."
)


def several_models(studies: Sequence[Study]) -> list[str]:
    """Return heading, table and paragraph for each recipe with several models."""
    found = compare_models(studies[0].comparison)
    parts = ["== Models Compared"] if found else []
    for number, compared in enumerate(found, 1):
        label = f"t-models-{number}"
        lead = LEAD.format(
            label=label,
            count=counted(len(compared.models), "model"),
            name=escaped(compared.name),
        )
        unable = [
            escaped(line if line.endswith(".") else f"{line}.") for line in missing_models(compared)
        ]
        if len(compared.models) > 1:
            parts += [_table(compared, label), joined(lead, *_against(compared), *unable)]
        else:
            parts.append(joined(*unable))
    return [*parts, escaped(MODELS_NOTE)] if found else []


def one_recipe_of_models(studies: Sequence[Study]) -> bool:
    """Whether all studies are of one recipe, each with a model of its own."""
    names = {study.settings.models_of for study in studies}
    sizes = any(study.settings.curve_of for study in studies)
    return len(studies) > 1 and len(names) == 1 and "" not in names and not sizes


def _table(compared: ModelsCompared, label: str) -> str:
    metric = METRICS[compared.metric]
    unit = f" ({metric.points})" if metric.points else ""
    head = ["Model", "Method", metric.title, f"To the best{unit}", "Verdict"]
    head += [METRICS[name].title for name in COSTS]
    lines = [_line(compared, one) for one in compared.models]
    caption = f"The best method of each model, “{escaped(compared.name)}”"
    return table(label, caption, [escaped(one) for one in head], lines, wide=True)


def _line(compared: ModelsCompared, one: BestOfModel) -> list[str]:
    pair = compared.against_best(one.recipe)
    difference = verdict = MISSING
    if pair is not None:
        difference = plain(pair.metric, pair.difference)
        difference += f" ({interval(pair.metric, pair.low, pair.high)})"
        verdict = escaped(pair.verdict)
    costs = [escaped(tidy(cost_of(one, name))) for name in COSTS]
    quality = plain(METRICS[compared.metric], one.row.mean(compared.metric))
    return [
        model_name(one.model),
        escaped(one.row.title),
        quality,
        difference,
        verdict,
        *costs,
    ]


def _against(compared: ModelsCompared) -> list[str]:
    """Describe each model beside the first one in a sentence."""
    first = compared.models[0]
    sentences = []
    for one in compared.models[1:]:
        pair = compared.against_best(one.recipe)
        if pair is None:
            continue
        sentences.append(
            f"With {escaped(one.row.title)}, {model_name(one.model)} is {escaped(pair.verdict)} "
            f"against {model_name(first.model)} with {escaped(first.row.title)} (difference "
            f"{gap(pair.metric, pair.difference)}, 95% interval "
            f"{interval(pair.metric, pair.low, pair.high)})."
        )
    return sentences
