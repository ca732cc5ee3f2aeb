"""The paragraph on how methods are compared, with the papers that the statistics come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peft_methods.analysis.margin import margin_text
from peft_methods.report.paper.english import joined, listed
from peft_methods.report.paper.references import cited
from peft_methods.report.paper.study import Study

PAIRS = (
    "All pairs of methods are compared on the same test examples. The variance between seeds is "
    "the largest of the pair's own, the one pooled over all methods, and the one moderated by "
    "them{moderated}. A difference must also be significant by Welch's test{welch}, which uses "
    "the pair's own variance only. The _p_ values are corrected by Holm's method over all "
    "pairs{holm}, and the intervals of differences have a simultaneous coverage of 95% over all "
    "pairs of a recipe. A pair is called separable if _p_ \\< 0.05; only then is one method called "
    "better than the other. Two methods are called equal within {margin} if the interval of their "
    "difference lies within it. Methods that share a letter are not separable{letters}."
)

SEQUENTIAL = (
    "Seeds were added until each method was worse than the best one or equal to it. The looks at "
    "the results share the error rate by a spending function{spending}, and verdicts follow from "
    "repeated confidence intervals{intervals}."
)


MEANS = (  # metrics that are means of examples' scores
    *("accuracy", "mae", "subset_accuracy"),
    *("exact_match", "rouge_l", "chrf"),
)


def _of_influence(studies: Sequence[Study]) -> Iterator[str]:
    names = dict.fromkeys(s.metric for s in studies if s.ranking.metric not in MEANS)
    if names:
        yield (
            f"The variance of {listed(list(names))} over examples is estimated by the "
            f"jackknife{cited('efron1982')}."
        )


def statistics(studies: Sequence[Study]) -> str:
    """Return a paragraph on what was tested, and what was not."""
    if not any(study.ranking.intervals for study in studies):
        return "Without stored predictions, no statistical test was possible."
    compared = any(study.is_compared for study in studies)
    several = any(study.ranking.order for study in studies)  # seeds
    return joined(
        _of_seeds_and_examples()
        if several
        else "Each interval is that of one trained model, over test examples.",
        f"The interval of one method is Wilson's{cited('wilson1927')}, with the effective sample "
        f"size that follows from the variance{cited('korn1998')}."
        if any(study.quality.is_share for study in studies)
        else "",
        "The interval of a metric that is no share is Student's."
        if not all(study.quality.is_share for study in studies)
        else "",
        *_of_influence(studies),
        PAIRS.format(
            moderated=cited("smyth2004"),
            welch=cited("welch1947"),
            holm=cited("holm1979"),
            letters=cited("gramm2007"),
            margin=margin_text(studies[0].ranking.margin, studies[0].quality),
        )
        if compared
        else "",
        SEQUENTIAL.format(spending=cited("lan1983"), intervals=cited("jennison1989"))
        if any(study.ranking.seeds_added is not None for study in studies)
        else "",
        "Costs are given as means and standard deviations over seeds; their differences were not "
        "tested.",
    )


def _of_seeds_and_examples() -> str:
    return (
        "Seeds and test examples are both treated as random samples: the variance of a mean is "
        f"that of the two-way layout with both factors random{cited('gallas2006')}, with "
        f"Satterthwaite's degrees of freedom{cited('satterthwaite1946')}."
    )
