"""The report's content as plain values: turns sections of records into template values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.analysis.checks import RULES
from peft_methods.analysis.checks.rule import Finding
from peft_methods.analysis.comparison import Comparison, Row
from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.questions import Recommendation
from peft_methods.analysis.ranking import Ranking
from peft_methods.analysis.recommendations import recommend
from peft_methods.analysis.regression import RegressionCheck
from peft_methods.analysis.sections import Section
from peft_methods.report.formatting import without_home
from peft_methods.report.html import settings, tables
from peft_methods.report.html.chart_view import ChartView
from peft_methods.report.html.estimates import estimates_table
from peft_methods.report.html.front import front_note
from peft_methods.report.html.noise import NoiseView
from peft_methods.report.html.settings import MethodView
from peft_methods.report.html.table import Table
from peft_methods.report.html.task_views import MethodViews, method_views
from peft_methods.report.html.tuning import tuning_table
from peft_methods.report.reproduce import CommandFormat, recipe_file
from peft_methods.report.text.left_out import left_out_lines
from peft_methods.report.text.notes import (
    grouped_findings,
    reasons,
    remarks_on_data,
    remarks_on_models,
    remarks_on_runs,
    source_costs,
)
from peft_methods.report.text.ranking import decision_notes
from peft_methods.report.text.setup import setup_line

SEVERITIES = ("error", "warning", "note")  # most severe first


@dataclass(frozen=True)
class FindingGroup:
    """All findings of one rule: (evidence, subjects) for each case, and the advice.

    `more` is the number of cases that are not listed.
    """

    rule: str
    severity: str
    title: str
    cases: tuple[tuple[str, tuple[str, ...]], ...]
    advice: tuple[str, ...]
    more: int = 0


@dataclass(frozen=True)
class SectionView:
    """One section of the report. Parts that are None or empty are not shown."""

    anchor: str
    recipe: str
    name: str
    description: str
    changes: tuple[str, ...]  # from the first section of the same recipe
    answers: tuple[Recommendation, ...]
    comparison: Table
    differences: Table | None
    notes: tuple[str, ...]
    charts: tuple[ChartView, ...]
    views: tuple[MethodViews, ...]
    baseline: Table | None
    regression_lines: tuple[str, ...]
    findings: tuple[FindingGroup, ...]
    tuning: Table | None
    estimates: Table | None
    metrics: Table
    settings: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    methods: tuple[MethodView, ...]
    recipe_file: str
    runs: Table
    run_count: int  # of which `runs` may list a part
    noise: NoiseView | None = None

    @property
    def headline(self) -> str:
        """The first recommendation, or a note that there is none."""
        return (
            str(self.answers[0])
            if self.answers
            else "There are too few results to recommend a method."
        )


def section_view(
    section: Section,
    limits: Constraints,
    regression: RegressionCheck | None,
    charts: Sequence[ChartView],
    *,
    regression_lines: Sequence[str],
    command: CommandFormat,
    of_each: int | None = None,
) -> SectionView:
    """Build the view of a section. `regression_lines` is the output of the regression check.

    `of_each` is how many runs of each method and cases of each finding are listed; None: all.
    """
    comparison = section.comparison
    rows, ranking = comparison.rows(), comparison.rankings[section.recipe]
    records = [record for record in comparison.records if record.role == "main"]
    by_method = {row.method: comparison.runs_of(section.recipe, row.method) for row in rows}
    methods = tuple(settings.method_view(row, by_method[row.method], command) for row in rows)
    common, specific = settings.split_common(records)
    listed = records
    if of_each is not None:
        listed = [record for of in by_method.values() for record in of[:of_each]]
    shown = (
        method_views(row, by_method[row.method], f"n{section.number}-", is_drawn=of_each is None)
        for row in rows
    )
    return SectionView(
        anchor=re.sub(r"[^A-Za-z0-9_.-]", "-", f"{section.recipe}-{section.number}"),
        recipe=section.recipe,
        name=section.name,
        description=without_home(setup_line(comparison, section.recipe)),
        changes=tuple(map(without_home, section.differences)),
        answers=tuple(recommend(comparison, limits)),
        comparison=tables.comparison_table(rows, ranking),
        differences=tables.differences_table(rows, ranking),
        notes=_all_notes(comparison, rows, ranking),
        charts=tuple(charts),
        views=tuple(views for views in shown if views is not None),
        baseline=tables.baseline_table(
            (row, regression.changes(by_method[row.method])) for row in rows
        )
        if regression
        else None,
        regression_lines=tuple(map(without_home, regression_lines)),
        findings=_finding_groups(comparison, of_each),
        tuning=tuning_table(rows, by_method),
        estimates=estimates_table(rows, by_method),
        metrics=tables.metrics_table(rows),
        settings=settings.settings(records[0]),
        environment=tuple(common.items()),
        methods=methods,
        recipe_file=recipe_file([found[0] for found in by_method.values()])
        if any(method.reproduction.needs_file for method in methods)
        else "",
        runs=settings.runs_table(listed, specific),
        run_count=len(records),
    )


def _all_notes(comparison: Comparison, rows: Sequence[Row], ranking: Ranking) -> tuple[str, ...]:
    """Return what is to be said below the tables."""
    lines = (
        *_notes(comparison, rows),
        *decision_notes(ranking, {row.method: row.title for row in rows}),
        front_note(rows, ranking),
        *left_out_lines(ranking, rows),
    )
    return tuple(without_home(line) for line in lines if line)


def _notes(comparison: Comparison, rows: Sequence[Row]) -> list[str]:
    """Explain how to read the table, and why results are missing."""
    finished = next((record for record in comparison.records if record.status == "ok"), None)
    lines = []
    if finished is not None:
        memory = finished.environment.get("memory_kind")
        lines.append(
            "Mean ± standard deviation over seeds. Train time: training steps only. "
            f"Peak memory: training only{f', {memory}' if memory else ''}."
        )
    if any(len(row.seeds) == 1 for row in rows):
        lines.append(
            "One seed shows no spread: differences between methods may be chance, "
            "and an interval covers one trained model only."
        )
    records = comparison.records
    remarks = [*remarks_on_models(records), *remarks_on_data(records), *remarks_on_runs(records)]
    return lines + reasons(rows) + source_costs(rows) + remarks


def _finding_groups(comparison: Comparison, most: int | None) -> tuple[FindingGroup, ...]:
    """Group findings by rule, errors first, with up to so many cases and subjects of each."""
    by_rule: dict[str, list[tuple[Finding, tuple[str, ...]]]] = {}
    for finding, subjects in grouped_findings(comparison.findings()):
        by_rule.setdefault(finding.rule, []).append((finding, subjects))
    groups = [
        FindingGroup(
            rule,
            cases[0][0].severity,
            RULES[rule].title,
            tuple(
                (without_home(finding.evidence), _first(subjects, most))
                for finding, subjects in cases[:most]
            ),
            tuple(dict.fromkeys(without_home(finding.advice) for finding, _ in cases)),
            len(cases) - len(cases[:most]),
        )
        for rule, cases in by_rule.items()
    ]
    return tuple(sorted(groups, key=lambda group: (SEVERITIES.index(group.severity), group.rule)))


def _first(subjects: tuple[str, ...], most: int | None) -> tuple[str, ...]:
    more = len(subjects) - len(subjects[:most])
    return (*subjects[:most], *([f"{more:,} more"] if more else []))
