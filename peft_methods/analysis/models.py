"""Several models on the same rows: the best method of each model, compared across models.

The best methods are chosen by the test scores that are then compared. So intervals and tests are
corrected for every pair of all models and methods, not only for those that were chosen: they hold
whichever pair is picked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from peft_methods.analysis.comparison import Comparison, Row
from peft_methods.analysis.pairs import PairwiseComparison, best_first, compare_pairs
from peft_methods.analysis.samples import Sample, same_examples
from peft_methods.profiling.metrics import METRICS
from peft_methods.tasks.registry import task_of

MODELS_NEEDED = 2


@dataclass(frozen=True)
class BestOfModel:
    """A model's best method: the recipe's name, the model's source, and the method's row."""

    recipe: str
    model: str
    row: Row


@dataclass(frozen=True)
class ModelsCompared:
    """The models of one recipe by `metric`, the best first.

    `pairs` compares the best method of every two models by the recipes' names, with intervals that
    hold simultaneously over all methods of all models. It is empty where a method has one seed or
    no predictions, or where the models were tested on `other_examples`. `not_compared` has the
    recipes without any method to compare. With `other_tokens` the metric is one of tokens, and the
    models have different ones: no model is the best by it.
    """

    name: str
    metric: str
    models: tuple[BestOfModel, ...]
    pairs: tuple[PairwiseComparison, ...]
    not_compared: tuple[str, ...] = ()
    other_examples: bool = False
    other_tokens: bool = False

    def against_best(self, recipe: str) -> PairwiseComparison | None:
        """Compare a model with the first one; None for that one itself, or if it is unknown."""
        best = self.models[0].recipe
        for pair in self.pairs:
            if {pair.first, pair.second} == {recipe, best} and recipe != best:
                return pair if pair.first == recipe else pair.reversed()
        return None


def compare_models(comparison: Comparison) -> list[ModelsCompared]:
    """Compare the models of each recipe that was trained with several. Empty without such."""
    groups: dict[str, dict[str, str]] = {}
    for record in comparison.records:
        recipe = record.spec.recipe
        if record.role == "main" and recipe.models_of and recipe.has_quality:
            rows = f"-{recipe.data.train_subset}" if recipe.curve_of else ""
            name = f"{recipe.models_of}{rows}"
            groups.setdefault(name, {})[record.recipe_name] = recipe.model.source
    return [
        _compared(comparison, name, models)
        for name, models in groups.items()
        if len(models) >= MODELS_NEEDED
    ]


def _compared(comparison: Comparison, name: str, models: Mapping[str, str]) -> ModelsCompared:
    metric = comparison.rankings[next(iter(models))].metric
    sign = METRICS[metric].sign()
    best = {recipe: row for recipe in models if (row := _best_row(comparison, recipe, metric))}
    same = len(best) < MODELS_NEEDED or _same_examples(comparison, list(best), metric)
    other_tokens = METRICS[metric].of_tokens and not same
    order = list(best)
    if not other_tokens:
        order = sorted(best, key=lambda recipe: -sign * best[recipe].mean(metric))
    return ModelsCompared(
        name,
        metric,
        tuple(BestOfModel(recipe, models[recipe], best[recipe]) for recipe in order),
        _pairs(comparison, {one: best[one].method for one in order}, metric) if same else (),
        tuple(recipe for recipe in models if recipe not in best),
        not same and not other_tokens,
        other_tokens,
    )


def _best_row(comparison: Comparison, recipe: str, metric: str) -> Row | None:
    """Return the row with the best mean; methods with an error finding are no candidates."""
    left_out = comparison.rankings[recipe].left_out
    rows = [
        row
        for row in comparison.rows_by_recipe[recipe]
        if row.method not in left_out and metric in row.metrics
    ]
    sign = METRICS[metric].sign()
    return max(rows, key=lambda row: sign * row.mean(metric), default=None)


def _same_examples(comparison: Comparison, recipes: list[str], metric: str) -> bool:
    """Whether all predictions of these recipes are for the same examples.

    Models may divide the same text into different tokens: the metric decides what an example is.
    """
    known = [
        task_of(record.spec.recipe).examples_of(found, metric)
        for recipe in recipes
        for row in comparison.rows_by_recipe[recipe]
        for record in comparison.runs_of(recipe, row.method)
        if (found := comparison.predictions.get(record.fingerprint)) is not None
    ]
    return same_examples(known)


def _pairs(
    comparison: Comparison, best: Mapping[str, str], metric: str
) -> tuple[PairwiseComparison, ...]:
    """Compare all methods of all models, and return the pairs of the best ones."""
    if len(best) < MODELS_NEEDED:
        return ()
    samples: dict[str, Sample] = {}
    recipe_of: dict[str, str] = {}
    for recipe, method in best.items():
        for other, sample in comparison.rankings[recipe].samples.items():
            samples[f"{recipe} {other}"] = sample
        recipe_of[f"{recipe} {method}"] = recipe
    order = best_first(samples, METRICS[metric].sign())
    margin = min(comparison.rankings[recipe].margin for recipe in best)  # in the metric's unit
    return tuple(
        replace(pair, first=recipe_of[pair.first], second=recipe_of[pair.second])
        for pair in compare_pairs(samples, order, margin, metric=METRICS[metric])
        if pair.first in recipe_of and pair.second in recipe_of
    )
