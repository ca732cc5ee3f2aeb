"""One recipe of a comparison: the figures that all sentences and tables of the paper use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from peft_methods.analysis.comparison import Comparison, Row
from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.learning_curve import LearningCurve, curves_of, main_part
from peft_methods.analysis.pairs import PairwiseComparison
from peft_methods.analysis.questions import Recommendation
from peft_methods.analysis.ranking import Ranking
from peft_methods.analysis.recommendations import recommend
from peft_methods.methods.registry import METHODS
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.schema import Recipe
from peft_methods.report.paper.english import formatted, joined, listed, was
from peft_methods.report.paper.typst import escaped
from peft_methods.report.text.left_out import left_out_groups, named_rules
from peft_methods.runs.record import Record
from peft_methods.tasks.metrics import Metric


@dataclass(frozen=True)
class Study:
    """The study of one recipe, the `position`th of the paper.

    `records` are the recipe's runs without prerequisite runs, `rows` its methods. `limits` exclude
    methods, and `answers` are the recommendations among the remaining ones. `curve` is the learning
    curve whose largest size this is.
    """

    position: int
    comparison: Comparison
    recipe: str
    records: tuple[Record, ...]
    rows: tuple[Row, ...]
    ranking: Ranking
    limits: Constraints
    answers: tuple[Recommendation, ...]
    curve: LearningCurve | None = None

    @property
    def settings(self) -> Recipe:
        """The recipe as it was run."""
        return self.records[0].spec.recipe

    @property
    def name(self) -> str:
        """The recipe's name as markup, for papers on several recipes."""
        return f"“{escaped(self.recipe)}”"

    @property
    def of(self) -> str:
        """Markup for captions: ', “name”' if the paper has several recipes."""
        return f", {self.name}" if len(self.comparison.rankings) > 1 else ""

    @cached_property
    def finished(self) -> list[Record]:
        """The records of runs that yielded figures."""
        return [record for record in self.records if record.status == "ok"]

    @property
    def model_type(self) -> str:
        """The model's type by its config; empty if the runs do not agree on one."""
        found = {str(record.environment.get("model_type") or "") for record in self.finished}
        return found.pop() if len(found) == 1 else ""

    @property
    def left_out(self) -> str:
        """Sentences on the methods that an error finding excludes; empty without any."""
        return joined(
            *(
                f"{self.titles(row.method for row in rows)} {was(len(rows))} excluded from the "
                "recommendations and the Pareto front because the validity rules found "
                f"{'an error' if len(rules) == 1 else 'errors'}: {escaped(named_rules(rules))}."
                for rules, rows in left_out_groups(self.ranking, self.rows).items()
            )
        )

    @property
    def sound_order(self) -> list[str]:
        """The compared methods without an error finding, best first."""
        return [method for method in self.ranking.order if method not in self.ranking.left_out]

    @cached_property
    def measured(self) -> list[Row]:
        """The methods that yielded figures."""
        return [row for row in self.rows if row.metrics]

    @property
    def quality(self) -> Metric:
        """The quality metric."""
        return METRICS[self.ranking.metric]

    @property
    def metric(self) -> str:
        """The name of the quality metric within a sentence."""
        return self.quality.in_text

    @property
    def has_quality(self) -> bool:
        """Whether the quality of any method is known."""
        return any(self.ranking.metric in row.metrics for row in self.rows)

    @property
    def is_compared(self) -> bool:
        """Whether at least two methods could be compared."""
        return bool(self.ranking.pairs)

    @property
    def seeds(self) -> list[int]:
        """All requested seeds."""
        return sorted({record.seed for record in self.records})

    @property
    def label(self) -> str:
        """The ending of the labels of this study's tables and figures."""
        return f"r{self.position}"

    def row(self, method: str) -> Row | None:
        """Return a method's row."""
        return next((row for row in self.rows if row.method == method), None)

    def title(self, method: str) -> str:
        """Return a method's name for people, as markup."""
        row = self.row(method)
        return escaped(row.title if row else method)

    def full(self) -> Row | None:
        """Full fine-tuning, if it yielded figures and is not alone."""
        row = self.row(METHODS.reference)
        return row if row is not None and row.metrics and len(self.measured) > 1 else None

    def titles(self, methods: Iterable[str], most: int | None = None) -> str:
        """List several methods' names in a sentence, as markup."""
        return listed([self.title(method) for method in methods], most)

    def mean(self, method: str) -> str:
        """Format the quality of a compared method."""
        row = self.row(method)
        assert row is not None, "a compared method has a row"
        return formatted(self.ranking.metric, row.mean(self.ranking.metric))

    def ratios(self, name: str) -> list[tuple[Row, float]]:
        """Return a cost of the other methods as multiples of full fine-tuning's, smallest first.

        Empty if either is not known.
        """
        full = self.full()
        if full is None or not full.metrics.get(name) or not full.mean(name) > 0:
            return []
        return [
            (row, row.mean(name) / full.mean(name)) for row in self.known(name) if row is not full
        ]

    def known(self, name: str) -> list[Row]:
        """Return the methods with a known value of a metric, smallest first."""
        return sorted(
            (row for row in self.rows if name in row.metrics), key=lambda row: row.mean(name)
        )

    def pairs_of(self, method: str) -> Iterator[PairwiseComparison]:
        """Yield every pair with this method as its first, in the order of the others' means."""
        for other in self.ranking.order:
            if other != method and (pair := self.ranking.pair(method, other)) is not None:
                yield pair


def studies_of(comparison: Comparison, limits: Constraints | None) -> list[Study]:
    """Return one study per recipe, in the order of the records.

    A learning curve is one study, that of its largest size.
    """
    curves = {curve.main.recipe: curve for curve in curves_of(comparison)}
    comparison = main_part(comparison)
    rows, answers = comparison.rows(), recommend(comparison, limits)
    return [
        Study(
            position,
            comparison,
            recipe,
            tuple(r for r in comparison.records if r.recipe_name == recipe and r.role == "main"),
            tuple(row for row in rows if row.recipe == recipe),
            ranking,
            limits or {},
            tuple(answer for answer in answers if answer.recipe == recipe),
            curves.get(recipe),
        )
        for position, (recipe, ranking) in enumerate(comparison.rankings.items(), 1)
    ]
