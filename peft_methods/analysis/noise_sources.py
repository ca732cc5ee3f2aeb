"""Where the noise of each method's mean comes from, by the records of one or more sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.ranking import Ranking
from peft_methods.analysis.samples import SEEDS_NEEDED, Sample, same_examples, sample_of
from peft_methods.analysis.variance_parts import (
    SeedPart,
    Shares,
    VarianceParts,
    added,
    added_parts,
    parts_of,
    seeds_alone,
    shares_of,
)
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.variation import PARTS
from peft_methods.runs.record import Record
from peft_methods.tasks.metrics import Metric
from peft_methods.tasks.registry import task_of


@dataclass(frozen=True)
class NoiseSources:
    """The shares of each method of a recipe, by method, in the order of its means.

    `together` is that of the methods' mean. None for one method, and if seeds draw rows: then the
    methods' seeds vary together. `parts` are the parts that were measured alone. `vary` is what the
    seeds of the recipe vary.
    """

    by_method: Mapping[str, Shares]
    together: Shares | None
    parts: tuple[str, ...]
    vary: tuple[str, ...]
    seeds: int
    rows: int
    metric: Metric


def noise_sources(
    comparison: Comparison, recipe: str, others: Sequence[Comparison] = ()
) -> NoiseSources | None:
    """Return where the noise of a recipe's means comes from; None without two seeds of a method.

    Runs of the same recipe in which a single part varies, in this comparison or in `others`, tell
    how much that part brings.
    """
    ranking = comparison.rankings[recipe]
    methods, metric = ranking.order, ranking.metric
    main = {method: comparison.runs_of(recipe, method) for method in methods}
    samples = _samples(comparison, ranking, main)
    if not samples:
        return None
    vary = next(iter(main.values()))[0].spec.recipe.budget.vary
    # A report has hundreds of sections, few of which have such runs.
    telling = [one for one in (comparison, *others) if one.varying_alone]
    alone = {
        method: dict(_alone(main[method], telling, metric, sample))
        for method, sample in samples.items()
    }
    parts = {method: parts_of(sample) for method, sample in samples.items()}
    first = next(iter(samples.values()))
    return NoiseSources(
        {method: shares_of(parts[method], alone[method]) for method in samples},
        _together(list(parts.values()), list(alone.values()))
        if len(samples) > 1 and not main[methods[0]][0].spec.row_seeds
        else None,
        tuple(part for part in PARTS if any(part in found for found in alone.values())),
        vary,
        max(sample.seeds for sample in samples.values()),
        first.examples,
        METRICS[metric],
    )


def _together(parts: Sequence[VarianceParts], alone: Sequence[Mapping[str, SeedPart]]) -> Shares:
    """Return the shares of all methods. Parts count that were measured alone for all of them."""
    common = [part for part in PARTS if all(part in found for found in alone)]
    return shares_of(
        added_parts(parts),
        {part: added([found[part] for found in alone]) for part in common},
        len(parts),
    )


def _samples(
    comparison: Comparison, ranking: Ranking, main: Mapping[str, Sequence[Record]]
) -> Mapping[str, Sample]:
    """Return the statistics of all seeds, by method. The ranking has them, unless it looks at some.

    Where seeds are added, it counts the same number of each method.
    """
    if ranking.seeds_added is None:
        return {method: ranking.samples[method] for method in ranking.order}
    found = {method: _sample(of, comparison, ranking.metric) for method, of in main.items()}
    return {method: sample for method, sample in found.items() if sample is not None}


def _sample(records: Sequence[Record], comparison: Comparison, metric: str) -> Sample | None:
    """Return the scores of finished runs on the same rows; None for fewer than two."""
    finished = [record for record in records if record.status == "ok"]
    found = [
        predictions
        for record in finished
        if (predictions := comparison.predictions.get(record.fingerprint)) is not None
        and record.metrics.get(metric) is not None
    ]
    if len(found) < SEEDS_NEEDED or not same_examples([one.labels for one in found]):
        return None
    task = task_of(finished[0].spec.recipe)
    return sample_of(np.stack([task.example_scores(one, metric) for one in found]))


def _alone(
    main: Sequence[Record], comparisons: Sequence[Comparison], metric: str, sample: Sample
) -> Iterator[tuple[str, SeedPart]]:
    """Yield each part of what the seeds vary that other runs of the same settings vary alone."""
    vary = main[0].spec.recipe.budget.vary
    for part in vary if len(vary) > 1 else ():
        for comparison in comparisons:
            single = comparison.varying_alone.get(part, ())
            records = [record for record in single if _settings(record) == _settings(main[0])]
            found = _sample(_one_per_seed(records), comparison, metric)
            if found is not None and found.examples == sample.examples:
                yield part, seeds_alone(found, sample.seeds)
                break


def _one_per_seed(records: Sequence[Record]) -> list[Record]:
    return list({record.seed: record for record in records if record.status == "ok"}.values())


def _settings(record: Record) -> str:
    """Return the settings of a run but the recipe's name, and what its seed varies."""
    recipe = record.spec.recipe_settings()
    budget = {name: value for name, value in recipe["budget"].items() if name != "vary"}
    method = record.spec.method_settings()
    where = record.spec.requested_engine, record.spec.device
    kept = [{**recipe, "name": "", "budget": budget}, record.method_name, method, where]
    return json.dumps(kept, sort_keys=True)
