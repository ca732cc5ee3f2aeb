"""Several models on the same rows in the HTML report, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.models import BestOfModel, ModelsCompared, compare_models
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import MISSING, source_name
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.text.models import (
    COSTS,
    MODELS_NOTE,
    cost_of,
    difference_of,
    missing_models,
    models_title,
)


@dataclass(frozen=True)
class ModelsView:
    """The best method of each model of a recipe, and notes."""

    title: str
    models: Table | None
    notes: tuple[str, ...]


def models_views(comparison: Comparison) -> tuple[ModelsView, ...]:
    """Build a view of each recipe that was trained with several models."""
    return tuple(map(_view, compare_models(comparison)))


def _view(compared: ModelsCompared) -> ModelsView:
    metric = METRICS[compared.metric]
    difference = f"To the best, {metric.points}" if metric.points else "To the best"
    headings = ("Method", metric.title, difference, "Verdict", *(METRICS[n].title for n in COSTS))
    lines = tuple(Line(source_name(one.model), _items(compared, one)) for one in compared.models)
    return ModelsView(
        models_title(compared),
        Table("Model", headings, lines, frozenset({"Method", "Verdict"})) if lines else None,
        (*missing_models(compared), *([MODELS_NOTE] if lines else [])),
    )


def _items(compared: ModelsCompared, one: BestOfModel) -> tuple[Item, ...]:
    pair, mean = compared.against_best(one.recipe), one.row.mean(compared.metric)
    return (
        Item(one.row.title, one.row.title),
        Item(METRICS[compared.metric].format(mean), mean),
        Item(difference_of(pair), None if pair is None else pair.difference),
        Item(MISSING if pair is None else pair.verdict),
        *(Item(cost_of(one, name), one.row.mean(name)) for name in COSTS),
    )
