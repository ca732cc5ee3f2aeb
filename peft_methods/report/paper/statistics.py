"""How methods are compared, with the papers that the statistics are from."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.report.paper.english import joined
from peft_methods.report.paper.references import cited
from peft_methods.report.paper.study import Study

PAIRS = (
    "Every two methods are compared on the same test examples. Values of _p_ are Holm's over all pairs{holm}, and intervals of differences "
    "hold for all pairs of a recipe at once (95%). A pair is called separable where _p_ \\< 0.05; only then is one method called better "
    "than the other. Methods that share a letter cannot be told apart{letters}."
)


def statistics(studies: Sequence[Study]) -> str:
    """A paragraph on what was tested, and what was not."""
    if not any(study.standing.intervals for study in studies):
        return "Without predictions there is nothing to test; no test was made."
    compared = any(study.is_compared for study in studies)
    several = any(study.standing.order for study in studies)  # seeds
    return joined(
        _of_seeds_and_examples()
        if several
        else "Intervals are those of one trained model each, over test examples.",
        f"The interval of one method is Wilson's{cited('wilson1927')} with the sample size that the variance speaks of{cited('korn1998')}.",
        f"The variance of macro F1 over examples is by the infinitesimal jackknife{cited('efron1982')}."
        if any(study.standing.metric == "macro_f1" for study in studies)
        else "",
        PAIRS.format(holm=cited("holm1979"), letters=cited("piepho2004")) if compared else "",
        "Costs are given as means and standard deviations over seeds; their differences were not tested.",
    )


def _of_seeds_and_examples() -> str:
    return (
        "Another seed gives another model, and another test set other examples, so both are treated as samples: the variance of a mean is "
        f"that of the two-way layout with both factors random{cited('gallas2006')}, with Satterthwaite's degrees of "
        f"freedom{cited('satterthwaite1946')}."
    )
