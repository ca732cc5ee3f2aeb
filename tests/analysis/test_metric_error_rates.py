"""Error rates of the comparison for the metrics of all tasks, by simulation.

Accuracy and macro F1 of classes are in `test_error_rates`. Without `-m simulation` a few settings
are simulated: enough to notice a gross mistake. With it, and `-s`, the figures of the documentation
are printed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import simulation
from metric_simulation import KINDS, Setting, samples_of, scores_of, shares, true_value, value_on
from scipy import stats
from simulation import all_differences_covered, any_alarm, covered, first_two_separate

from peft_methods.analysis.sequential import decide
from peft_methods.analysis.significance import differences
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.paper.statistics import MEANS
from peft_methods.runs.seed_plan import SeedPlan
from peft_methods.tasks.registry import TASKS

WILD = 6.0  # spread of the first method, where it is another than that of the others
FEW, INTERVALS = 100, 200  # repetitions
MANY = {2: 1000, 8: 500}  # by the number of methods
SIZED = "macro_f1"  # of rare labels: it is lower on few rows


def setting(
    kind: str, methods: int, seeds: int, rows: int, *, wild: bool = False, fewer: int = 0
) -> Setting:
    """Equal methods of spread 1; with `wild`, one of 6 and the others of 0.5."""
    spreads = (WILD, *[0.5] * (methods - 1)) if wild else (1.0,) * methods
    return Setting(kind, spreads, (fewer or seeds, *[seeds] * (methods - 1)), rows)


GRID = [
    setting(kind, *shape, **more)
    for kind in KINDS
    for shape, more in (
        ((2, 3, 200), {}),
        ((2, 3, 2000), {"wild": True}),
        ((2, 5, 200), {"wild": True}),
        ((8, 2, 200), {"wild": True}),
        ((8, 3, 500), {"wild": True}),
        ((8, 10, 200), {"wild": True, "fewer": 2}),
    )
]


def above(limit: float, repetitions: int) -> float:
    """Return what a rate at the limit exceeds by chance in one of 1,000 simulations."""
    return float(stats.binom.ppf(0.999, repetitions, limit)) / repetitions


def test_every_metric_that_can_rank_methods_is_simulated() -> None:
    """Others are means of rows, as ROUGE-L is, or made like one of these."""
    alike = {
        "accuracy", "weighted_f1", "macro_precision", "macro_recall",  # see `test_error_rates`
        "entity_precision", "entity_recall", "token_accuracy",  # ratios, as entity F1
        "subset_accuracy", "chrf",  # means of rows, as exact match and ROUGE-L
        "micro_f1_tuned",  # with a threshold from validation rows
        "bleu", "average_precision",  # influences of rows, as macro F1
    }  # fmt: skip
    metrics = {metric.name for task in TASKS.values() for metric in task.metrics}
    assert metrics == alike | set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_paper_names_the_metrics_that_are_no_means_of_rows(kind: str) -> None:
    """Scores of a mean depend on their own row alone, those of other metrics on all rows."""
    shape, model, rng = KINDS[kind], KINDS[kind].scores, np.random.default_rng(0)
    drawn = shape.draw(rng, 30)
    noise = rng.standard_normal(len(drawn.values))
    row = drawn.row[0]
    changed = np.where(drawn.row == row, noise - 3, noise)
    moved = model(drawn, noise, 0.0) != model(drawn, changed, 0.0)
    assert np.delete(moved, row).any() == (kind not in MEANS)


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_methods_have_the_true_value_in_the_mean(kind: str) -> None:
    one = Setting(kind, (3.0, 0.5), (3, 3), 500)
    means = np.asarray([[of.mean() for of in found] for found in scores_of(one, 60)])
    error = means.std(0) / np.sqrt(60)
    assert np.abs(means.mean(0) - true_value(kind)) == pytest.approx(0, abs=4 * error.max())


@pytest.mark.parametrize("kind", ["spearman", "entity_f1", "perplexity"])
def test_simulation_compares_as_a_session_does(kind: str) -> None:
    scores = next(scores_of(setting(kind, 3, 3, 300), 1))
    given = {str(index): list(one) for index, one in enumerate(scores)}
    session = decide(given, SeedPlan(3, 3), 0.01, METRICS[kind]).samples
    found = differences(samples_of([scores], kind))
    assert found.difference[0, 0] == pytest.approx(session["0"].mean - session["1"].mean)
    expected = differences([session[str(index)] for index in range(3)])
    assert found.p[0] == pytest.approx(expected.p)


@pytest.mark.parametrize("kind", ["spearman", "mae", "entity_f1", "macro_f1", "perplexity"])
def test_equal_methods_are_rarely_called_different(kind: str) -> None:
    (rate,) = shares(setting(kind, 2, 3, 200, wild=True), [any_alarm], FEW)
    assert rate <= above(0.06, FEW)


@pytest.mark.simulation
@pytest.mark.parametrize("one", GRID, ids=str)
def test_error_rates_of_the_documented_settings(one: Setting) -> None:
    methods = len(one.seeds)
    repetitions = MANY[methods]
    alarms, together = shares(one, [any_alarm, all_differences_covered], repetitions)
    true = value_on(SIZED, one.rows) if one.kind == SIZED else true_value(one.kind)
    (of_methods,) = shares(one, [covered((true,) * methods)], INTERVALS)
    print(
        f"\nfalse alarms in {alarms:.1%}; intervals of methods hold in {of_methods:.1%}, all of "
        f"differences together in {together:.1%}: {one}"
    )
    assert alarms <= above(0.06, repetitions)
    assert together >= 1 - above(0.06, repetitions)
    assert of_methods >= 1 - above(0.06, INTERVALS)


@pytest.mark.simulation
@pytest.mark.parametrize(("methods", "points"), [(2, 8), (8, 12)])
def test_power_where_the_metric_is_no_share(methods: int, points: int) -> None:
    """The same answers with three seeds, as a share and as another metric of the same spread."""
    accuracies = (0.8 + points / 200, 0.8 - points / 200, *[0.8] * (methods - 2))
    apart = simulation.Setting(accuracies, (2.3,) * methods, (3,) * methods)
    share = simulation.share(apart, first_two_separate, 500)
    other = simulation.share(
        apart, lambda found: first_two_separate([replace(one, scale=0.4) for one in found]), 500
    )
    print(
        f"\n{points} points between two of {methods} methods: {share:.1%} as a share, {other:.1%}"
    )
    assert other >= 0.8 * share
